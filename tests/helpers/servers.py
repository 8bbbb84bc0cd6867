"""Serve over HTTP on this machine, while a test runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

ServerT = TypeVar("ServerT", bound=ThreadingHTTPServer)


@contextmanager
def serving(server: ServerT) -> Iterator[ServerT]:
    """Answer requests in a thread, at ``server.url``; afterwards, close the server."""
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class FolderServer(ThreadingHTTPServer):
    """Serves the files of a folder on a port of its own, and records the requested paths in ``asked``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(FolderAnswers, directory=str(folder)))
        self.folder, self.asked = folder, []


class FolderAnswers(SimpleHTTPRequestHandler):
    server: FolderServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass
