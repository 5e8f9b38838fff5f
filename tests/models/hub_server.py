"""A server on this machine that answers as the Hugging Face Hub's file pages do."""

from __future__ import annotations

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `files` by (repo, revision, path); `broken` names a path whose first answer stops half-way."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.clear()

    def clear(self) -> None:
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.gated: set[str] = set()
        self.broken: set[str] = set()
        self.status: int | None = None
        self.log: list[tuple[str, str, str | None]] = []

    def put(self, repo: str, path: str, content: bytes, revision: str = "main") -> None:
        self.files[repo, revision, path] = content

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, method: str) -> int:
        return sum(entry[0] == method for entry in self.log)


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        owner, name, _, rest = self.path.lstrip("/").split("/", 3)
        revision, path = rest.split("/", 1)
        repo, span = f"{owner}/{name}", self.headers.get("Range")
        self.server.log.append((self.command, path, span))
        if self.server.status is not None:
            return self._refuse(self.server.status, "")
        if repo in self.server.gated:
            return self._refuse(403, "GatedRepo")
        known = {entry[:2] for entry in self.server.files}
        if repo not in {entry[0] for entry in known}:
            return self._refuse(401, "RepoNotFound")
        if (repo, revision) not in known:
            return self._refuse(404, "RevisionNotFound")
        content = self.server.files.get((repo, revision, path))
        if content is None:
            return self._refuse(404, "EntryNotFound")
        start = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content) - start))
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if with_body and path in self.server.broken:
            self.server.broken.discard(path)
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
        elif with_body:
            self.wfile.write(content[start:])

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """No lines on stderr."""
