"""A small stand-in for the Hugging Face Hub, on this machine: repositories in memory, one commit after another."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.servers import serving


class Hub(ThreadingHTTPServer):
    """Answers what ``huggingface_hub`` asks to make a repository, to commit files to it, and to download them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []

    def commit(self, name: str) -> str:
        """Return the name of a repository's newest commit."""
        return hashlib.sha1(repr(sorted(self.repositories[name].items())).encode()).hexdigest()


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def say(self, status: int, value: object, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        path = self.path.split("?")[0]
        found = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+)/(revision|tree|resolve)/([^/]+)(?:/(.*))?", path)
        if not found or found[1] not in self.server.repositories:
            self.say(404, {"error": "not found"}, X_Error_Code="RepoNotFound")
            return
        name, kind, _, file = found.groups()
        files, commit = self.server.repositories[name], self.server.commit(name)
        sizes = [{"rfilename": f, "path": f, "type": "file", "oid": "0" * 40, "size": len(d)} for f, d in files.items()]
        if kind == "revision":
            self.say(200, {"id": name, "sha": commit, "siblings": sizes})
        elif kind == "tree":
            self.say(200, sizes)
        elif file not in files:
            self.say(404, {"error": "not found"}, X_Error_Code="EntryNotFound")
        else:
            tag = hashlib.sha1(files[file]).hexdigest()
            self.say(200, files[file], X_Repo_Commit=commit, ETag=f'"{tag}"')

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/validate-yaml":
            self.say(200, {"errors": [], "warnings": []})
            return
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            new = self.server.repositories.setdefault(name, {}) == {}
            self.say(200 if new else 409, {"url": f"{self.server.url}/{name}"})
            return
        name, kind = re.fullmatch(
            r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path.split("?")[0]
        ).groups()
        if kind == "preupload":
            files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            self.say(200, {"files": [{**f, "shouldIgnore": False} for f in files]})
            return
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                self.server.repositories[name][value["path"]] = base64.b64decode(value["content"])
        commit = self.server.commit(name)
        self.say(200, {"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit, "success": True})

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Put a stand-in in the Hub's place; skip the test if the package is not installed."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with serving(Hub()) as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        changed = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
        }
        for name, value in {**changed, "HF_HUB_DISABLE_XET": True, "HF_HUB_DISABLE_TELEMETRY": True}.items():
            monkeypatch.setattr(constants, name, value)
        yield server
