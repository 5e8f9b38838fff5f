"""A server on this machine that takes uploads as the Hugging Face Hub does: repositories, large files, commits."""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".mp4")
"""Ends of names of files that are uploaded by themselves, and only named in a commit."""


class UploadHub(ThreadingHTTPServer):
    """Keeps what was committed in `files`, by repository and path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories: dict[str, dict[str, Any]] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.large: dict[str, bytes] = {}
        self.messages: list[str] = []
        self.tokens: set[str | None] = set()
        self.refuses: int | None = None
        """The status of every answer, if it is to be an error."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


def is_private(asked: dict[str, Any]) -> bool:
    """Whether a repository was asked for that only its owner sees."""
    return asked.get("private") is True or asked.get("visibility") == "private"


class _Answer(BaseHTTPRequestHandler):
    server: UploadHub

    def do_POST(self) -> None:
        content = self._content()
        path = urlsplit(self.path).path.strip("/")
        if "/info/lfs/" not in path:
            self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuses is not None:
            return self._send({"error": "you may not"}, self.server.refuses)
        if path == "api/repos/create":
            asked = json.loads(content)
            name = f"{asked.get('organization')}/{asked['name']}"
            status = 409 if name in self.server.repositories else 200
            self.server.repositories.setdefault(name, asked)
            return self._send({"url": f"{self.server.url}/{name}"}, status)
        if path == "api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            return self._send(
                {"transfer": "basic", "objects": [self._place(each) for each in json.loads(content)["objects"]]}
            )
        repository = "/".join(path.split("/")[2:4])
        if repository not in self.server.repositories:
            return self._send({"error": "no such repository"}, 404)
        if "/preupload/" in path:
            return self._send({"files": [self._mode(each) for each in json.loads(content)["files"]]})
        self._commit(repository, content)
        return self._send({"commitUrl": f"{self.server.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})

    def do_GET(self) -> None:
        name = urlsplit(self.path).path.removeprefix("/api/models/")
        asked = self.server.repositories.get(name)
        if asked is None:
            return self._send({"error": "no such repository"}, 404)
        self._send({"id": name, "private": is_private(asked)})

    def do_PUT(self) -> None:
        self.server.large[self.path.rpartition("/")[2]] = self._content()
        self._send({})

    def _place(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {**asked, "actions": {"upload": {"href": f"{self.server.url}/large/{asked['oid']}"}}}

    def _mode(self, asked: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if asked["path"].endswith(LARGE) else "regular"
        return {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}

    def _commit(self, repository: str, content: bytes) -> None:
        for line in content.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.server.messages.append(value["summary"])
            elif entry["key"] == "file":
                self.server.files[repository, value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.server.files[repository, value["path"]] = self.server.large[value["oid"]]

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, answer: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """No lines on stderr."""
