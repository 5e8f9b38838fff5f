"""textual-serve's server, plus a token, limits on pages and sizes, and an end of all pages when it stops."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from functools import partial

from aiohttp import WSCloseCode, web
from textual_serve.app_service import AppService
from textual_serve.server import Server

from tui.serve import LOOPBACK, SERVER, address, guard

MOST_PAGES = 16
"""Dashboards at the same time: each is a process."""
MOST_CELLS = 1000
"""Columns and rows of a dashboard."""


class GuardedServer(Server):
    """Serves dashboards to those who have the token.

    Args:
        command: starts a dashboard; one for each page.
        port: on loopback.
        token: must be in the address or the cookie.
    """

    def __init__(self, command: str, port: int, token: str) -> None:
        self.pages: set[web.WebSocketResponse] = set()
        self._token = token
        super().__init__(command, host=LOOPBACK, port=port, title="hv15", public_url=f"http://{LOOPBACK}:{port}")

    def serve(self, debug: bool = False) -> None:
        """Serve until Ctrl-C or SIGTERM. Nothing is logged: a log of requests would keep the token."""
        self.debug = debug
        loop = asyncio.new_event_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.request_exit)
        # The address is told when it can be opened: textual-serve tells it before.
        web.run_app(
            self._make_app(), host=self.host, port=self.port, handle_signals=False, loop=loop, print=self._tell_address
        )

    async def on_startup(self, app: web.Application) -> None:
        """Tell nothing yet."""

    def _tell_address(self, _: str) -> None:
        print(f"The dashboard: {address(self.port, self._token)}")
        print("From another machine first:  ssh -L " + f"{self.port}:{LOOPBACK}:{self.port} {socket.gethostname()}")
        print("Ctrl-C ends it; the run continues", flush=True)

    async def _make_app(self) -> web.Application:
        secret_path = f"/{secrets.token_urlsafe(12)}"
        app = web.Application(middlewares=[guard(self._token, self.port, secret_path)])
        app.add_subapp(secret_path, await super()._make_app())
        return app

    async def on_shutdown(self, app: web.Application) -> None:
        for page in list(self.pages):
            await page.close()

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Let a page drive a dashboard of its own."""
        if len(self.pages) >= MOST_PAGES:
            raise web.HTTPServiceUnavailable(text=f"{MOST_PAGES} dashboards are open: close one\n")
        page = web.WebSocketResponse(heartbeat=15)
        self.pages.add(page)
        try:
            await page.prepare(request)
            service = PageProcess(
                self.command,
                write_bytes=page.send_bytes,
                write_str=page.send_str,
                close=partial(_close, page),
                download_manager=self.download_manager,
            )
            await service.start(*(request.query.get(name) for name in ("width", "height")))
            try:
                await self._process_messages(page, service)
            finally:
                await service.stop()
        except (ValueError, TypeError, LookupError, AssertionError, AttributeError, RecursionError):
            await page.close(code=WSCloseCode.UNSUPPORTED_DATA)  # not a message of our page
        finally:
            self.pages.discard(page)
        return page


class PageProcess(AppService):
    """The process of one page, with a limit on the size of its terminal."""

    async def start(self, width: object, height: object) -> None:
        await super().start(_cells(width, 80), _cells(height, 24))

    def _build_environment(self, width: int = 80, height: int = 24) -> dict[str, str]:
        return {**super()._build_environment(width, height), SERVER: str(os.getpid())}

    async def stop(self) -> None:
        await super().stop()
        if self._process is not None:
            await self._process.wait()

    async def set_terminal_size(self, width: object, height: object) -> None:
        await super().set_terminal_size(_cells(width, 80), _cells(height, 24))


async def _close(page: web.WebSocketResponse) -> None:
    await page.close()


def _cells(value: object, default: int) -> int:
    """Columns or rows as a browser gives them, within bounds."""
    try:
        return min(max(1, int(str(value)[:9])), MOST_CELLS)
    except ValueError:
        return default
