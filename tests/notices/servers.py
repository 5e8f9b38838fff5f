"""A web server on this machine that keeps what is posted to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Posted:
    """One request."""

    path: str
    headers: dict[str, str]
    content: Any


@dataclass
class Inbox:
    """What has arrived, and what is answered: the codes in turn, and then 200."""

    address: str = ""
    codes: list[int] = field(default_factory=list)
    requests: list[Posted] = field(default_factory=list)

    @property
    def contents(self) -> list[Any]:
        return [each.content for each in self.requests]


@contextmanager
def inbox(codes: Sequence[int] = ()) -> Iterator[Inbox]:
    """Serve on a free port of 127.0.0.1."""
    found = Inbox(codes=[*codes])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.requests.append(Posted(self.path, dict(self.headers), content))
            self.send_response(found.codes.pop(0) if found.codes else 200)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
