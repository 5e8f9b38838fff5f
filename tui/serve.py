"""The same dashboard in a browser on this machine (`hv15 tui --serve`): loopback only, and only with the token.

textual-serve has no login, and whoever can open the page can start programs. So each request must bring the token: once
in the address that is printed, then in a cookie. Pages of another origin, and host names that somebody's DNS points to
127.0.0.1, are refused too. Browsers send cookies to every port of a machine, so this one is limited to a path that
nobody can guess: no other server here gets it. Each browser tab runs a dashboard of its own, limited in number and in
size; they end with the server. The run itself needs none of them.
"""

from __future__ import annotations

import hmac
import secrets
import shlex
import socket
import sys
from collections.abc import Sequence
from http.cookies import CookieError
from typing import TYPE_CHECKING

from hv15.errors import UserError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware
    from textual_serve.server import Server

LOOPBACK = "127.0.0.1"
SERVER = "HV15_SERVER"
"""Environment variable of a page's dashboard: the process id of its server. It may have died before the dashboard looks
for its parent."""
POLICY = "style-src 'self' 'unsafe-inline'; font-src 'self' data:; frame-ancestors 'none'"
"""textual-serve's page asks another host for a font; no other host needs to know that it was opened."""


def serve(arguments: Sequence[str], port: int) -> int:
    """Serve the dashboard until Ctrl-C.

    Args:
        arguments: of `python -m tui`, for each page that is opened.
        port: on loopback; 0 takes a free one.

    Raises:
        UserError: the extra is not installed, or the port is taken.
    """
    server = make_server(arguments, port or free_port(), secrets.token_urlsafe(24))
    refuse_taken(server.port)
    server.serve()
    return 0


def address(port: int, token: str) -> str:
    """The address to open in the browser."""
    return f"http://{LOOPBACK}:{port}/?token={token}"


def make_server(arguments: Sequence[str], port: int, token: str) -> Server:
    """Return a server that asks for the token.

    Raises:
        UserError: the extra is not installed.
    """
    try:
        from tui.guarded_server import GuardedServer
    except ImportError as error:
        raise UserError(
            f"the web view needs the extra `web`, which is not installed ({error.name} is missing)",
            hint="pip install 'hv15[web]', or use the dashboard in the terminal: it is the same",
        ) from error

    # `exec`: the shell is replaced by the dashboard, which then sees the server as its parent and ends with it.
    command = "exec " + shlex.join([sys.executable, "-P", "-m", "tui", *arguments])
    return GuardedServer(command, port, token)


def guard(token: str, port: int, secret_path: str) -> Middleware:
    """Return aiohttp middleware that lets requests with the token pass.

    Args:
        token: what the address or the cookie must bring.
        port: on loopback.
        secret_path: where the pages are; the cookie is sent for them alone.
    """
    from aiohttp import web

    cookie = f"hv15-{port}"
    host = f"{LOOPBACK}:{port}"

    def same(found: str | None) -> bool:
        # Headers may hold bytes that are not text.
        return found is not None and hmac.compare_digest(found.encode("utf-8", "surrogateescape"), token.encode())

    def brings_cookie(request: web.Request) -> bool:
        try:
            return same(request.cookies.get(cookie))
        except (CookieError, ValueError):  # malformed
            return False

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.host != host or request.headers.get("Origin", f"http://{host}") != f"http://{host}":
            raise web.HTTPForbidden(text="requested under another name or from another page\n")
        if request.path == "/" and same(request.query.get("token")):
            # The token leaves the address bar and the browser's history at once.
            welcome = web.HTTPSeeOther(f"http://{host}{secret_path}/")
            welcome.set_cookie(cookie, token, path=secret_path, httponly=True, samesite="Strict")
            welcome.headers["Cache-Control"] = "no-store"
            raise welcome
        if not brings_cookie(request):
            raise web.HTTPForbidden(text="open the full address that `hv15 tui --serve` printed\n")
        response = await handler(request)
        if not response.prepared:
            response.headers["Content-Security-Policy"] = POLICY
            response.headers["Referrer-Policy"] = "no-referrer"
        return response

    return check


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def refuse_taken(port: int) -> None:
    """Check that the port can be used.

    Raises:
        UserError: something else listens on it, or it is not permitted.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"port {port}: {reason}", hint="choose another with --port, or --port 0 for any") from error
