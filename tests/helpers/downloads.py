"""Keep tests off the network, and serve files for downloads."""

from __future__ import annotations

import dataclasses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.servers import serving
from torchdl.data.sources import SOURCES


@pytest.fixture
def isolated(monkeypatch, tmp_path):
    """Hide this machine's own data and the network from a test."""
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    for name, source in SOURCES.items():
        nowhere = ("http://127.0.0.1:9/",)  # the discard port refuses at once
        monkeypatch.setitem(SOURCES, name, dataclasses.replace(source, mirrors=nowhere, system_folders=()))


@pytest.fixture
def server():
    """Serve ``server.pages`` by path, and record the requested paths in ``server.asked``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            status, body, *length = server.pages.get(self.path, (404, b"not here"))
            self.send_response(status)
            self.send_header("Content-Length", str(length[0] if length else len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages, server.asked = {}, []
    with serving(server):
        yield server
