"""The web view serves nobody who does not bring the token."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual_serve", reason="the extra `web` is not installed")

import aiohttp
from aiohttp import web

from hv15.errors import UserError
from tui import serve

TOKEN = "secret-token"


def visit(work: Callable[[aiohttp.ClientSession, str], Awaitable[None]], arguments: tuple[str, ...] = ()) -> None:
    """Run the server and let `work` be its client."""

    async def both() -> None:
        port = serve.free_port()
        server = serve.make_server(arguments, port, TOKEN)
        runner = web.AppRunner(await server._make_app())
        await runner.setup()
        await web.TCPSite(runner, serve.LOOPBACK, port).start()
        jar = aiohttp.CookieJar(unsafe=True)  # cookies of an address that is a number
        try:
            async with aiohttp.ClientSession(cookie_jar=jar) as session:
                await work(session, f"http://{serve.LOOPBACK}:{port}")
        finally:
            await runner.cleanup()

    asyncio.run(both())


async def status(session: aiohttp.ClientSession, url: str, **options: Any) -> int:
    async with session.get(url, **options) as response:
        return response.status


@pytest.mark.parametrize(
    "path", ["/", "/?token=", "/?token=secret-tokem", "/ws", "/static/js/textual.js", "/download/x"]
)
def test_nothing_is_served_without_the_token(path: str) -> None:
    async def work(session: aiohttp.ClientSession, url: str) -> None:
        assert await status(session, url + path) == 403

    visit(work)


def test_the_token_opens_the_page_and_leaves_the_address() -> None:
    async def work(session: aiohttp.ClientSession, url: str) -> None:
        async with session.get(f"{url}/?token={TOKEN}") as response:
            assert (response.status, str(response.url)) == (200, f"{url}/")
            assert "googleapis" not in response.headers["Content-Security-Policy"]
            assert TOKEN not in await response.text()
        assert await status(session, f"{url}/static/js/textual.js") == 200
        assert [cookie["httponly"] for cookie in session.cookie_jar] == [True]

    visit(work)


def test_other_names_and_other_pages_are_refused() -> None:
    async def work(session: aiohttp.ClientSession, url: str) -> None:
        await status(session, f"{url}/?token={TOKEN}")
        assert await status(session, url) == 200
        assert await status(session, url, headers={"Host": "evil.example"}) == 403
        assert await status(session, f"{url}/ws", headers={"Origin": "https://evil.example"}) == 403

    visit(work)


def test_the_page_drives_a_program(tmp_path: Path) -> None:
    """Textual's web driver shakes hands on its output; any program that does the same will do."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nsys.stdout.buffer.write(b'__GANGLION__\\n' + b'D' + (5).to_bytes(4, 'big') + b'hello')\n"
    )

    async def work(session: aiohttp.ClientSession, url: str) -> None:
        await status(session, f"{url}/?token={TOKEN}")
        async with session.ws_connect(f"{url}/ws") as socket_:
            message = await socket_.receive(timeout=300)
            assert message.data == b"hello"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve.shlex, "join", lambda _: f"{sys.executable} {program}")
        visit(work)


def test_it_listens_on_loopback_alone() -> None:
    assert serve.make_server((), 1234, TOKEN).host == "127.0.0.1"


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind((serve.LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}: Address already in use"):
            serve.serve((), port)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textual_serve.server", None)
    with pytest.raises(UserError, match="the extra `web`") as caught:
        serve.make_server((), 1234, TOKEN)
    assert "pip install 'hv15[web]'" in caught.value.hint
