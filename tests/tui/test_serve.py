"""The web view serves nobody who does not bring the token."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual_serve", reason="the extra `web` is not installed")

import aiohttp
import psutil
from aiohttp import web
from yarl import URL

from hv15.errors import UserError
from tui import guarded_server, serve

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


async def opened(session: aiohttp.ClientSession, url: str) -> str:
    """Open the printed address and return that of the page."""
    async with session.get(f"{url}/?token={TOKEN}") as response:
        return str(response.url)


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
            assert response.status == 200
            page = str(response.url)
            assert page.startswith(f"{url}/")
            assert TOKEN not in page
            assert "googleapis" not in response.headers["Content-Security-Policy"]
            text = await response.text()
            assert TOKEN not in text
            assert f'"{page.replace("http", "ws", 1)}ws"' in text
        assert await status(session, f"{page}static/js/textual.js") == 200
        assert [cookie["httponly"] for cookie in session.cookie_jar] == [True]

    visit(work)


def test_other_names_and_other_pages_are_refused() -> None:
    async def work(session: aiohttp.ClientSession, url: str) -> None:
        page = await opened(session, url)
        assert await status(session, page) == 200
        assert await status(session, page, headers={"Host": "evil.example"}) == 403
        assert await status(session, f"{page}ws", headers={"Origin": "https://evil.example"}) == 403

    visit(work)


def test_the_cookie_belongs_to_this_server_alone() -> None:
    """Browsers send cookies to every port of a host; that of one path is sent for this path alone."""

    async def work(session: aiohttp.ClientSession, url: str) -> None:
        page = await opened(session, url)
        assert session.cookie_jar.filter_cookies(URL(page))
        for other in (f"{url}/", "http://127.0.0.1:1/", "http://127.0.0.1:1/static/"):
            assert not session.cookie_jar.filter_cookies(URL(other))
        assert page not in {await opened(session, url + "/"), url}, "nobody can guess the path"

    paths = set[str]()

    async def remember(session: aiohttp.ClientSession, url: str) -> None:
        paths.add(URL(await opened(session, url)).path)

    visit(remember)
    visit(remember)
    assert len(paths) == 2, "each server has another one"
    assert all(len(path) > 12 for path in paths)
    visit(work)


@pytest.mark.parametrize(
    "cookie",
    [b"hv15-PORT=\xff\xfe", b"hv15-PORT=\xed\xa0\x80", b"hv15-PORT", b';;;="', b'hv15-PORT="secret-token', b"=" * 5000],
    ids=range(6),
)
def test_a_malformed_cookie_is_refused(cookie: bytes) -> None:
    async def work(session: aiohttp.ClientSession, url: str) -> None:
        page = URL(await opened(session, url))
        assert page.port
        reader, writer = await asyncio.open_connection(serve.LOOPBACK, page.port)
        head = f"GET {page.path} HTTP/1.1\r\nHost: {serve.LOOPBACK}:{page.port}\r\nConnection: close\r\nCookie: "
        writer.write(head.encode() + cookie.replace(b"PORT", str(page.port).encode()) + b"\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"403"
        writer.close()

    visit(work)


PROGRAM = """
import json, os, sys
out = sys.stdout.buffer
def say(text):
    out.write(b"D" + len(text).to_bytes(4, "big") + text)
    out.flush()
out.write(b"__GANGLION__\\n")
say(f"{os.environ['COLUMNS']}x{os.environ['ROWS']} {os.getppid()}".encode())
while head := sys.stdin.buffer.read(5):
    packet = json.loads(sys.stdin.buffer.read(int.from_bytes(head[1:], "big")))
    if packet["type"] == "quit":
        break
    say(f"{packet['width']}x{packet['height']}".encode())
"""
"""Textual's web driver shakes hands on its output; any program that does the same will do."""


def visit_program(folder: Path, work: Callable[[aiohttp.ClientSession, str], Awaitable[None]]) -> None:
    (folder / "program.py").write_text(PROGRAM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve.shlex, "join", lambda _: f"{sys.executable} {folder / 'program.py'}")
        visit(work)


def test_the_page_drives_a_program(tmp_path: Path) -> None:
    async def work(session: aiohttp.ClientSession, url: str) -> None:
        page = await opened(session, url)
        async with session.ws_connect(f"{page}ws?width=100&height=30") as socket_:
            said = (await socket_.receive(timeout=300)).data.decode()
            assert said == f"100x30 {os.getpid()}", "the server is its parent: it sees its end"
            await socket_.send_json(["resize", {"width": 90, "height": 20}])
            assert (await socket_.receive(timeout=300)).data == b"90x20"

    visit_program(tmp_path, work)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda end: end.name)
def test_dashboards_end_with_their_server(end: signal.Signals, tmp_path: Path) -> None:
    """Whatever ends it: a dashboard that nobody can see any more keeps no memory and reads no files."""
    (tmp_path / "config.yaml").write_text("task: t2v\n")
    words = [sys.executable, "-P", "-m", "hv15.cli", "tui", str(tmp_path), "--serve"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        server = psutil.Process(process.pid)
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]

        async def open_two_and_end_the_server() -> list[psutil.Process]:
            jar = aiohttp.CookieJar(unsafe=True)
            async with aiohttp.ClientSession(cookie_jar=jar) as session:
                async with session.get(address) as response:
                    page = str(response.url)
                pages = [await session.ws_connect(f"{page}ws") for _ in range(2)]
                for each in pages:
                    assert (await each.receive(timeout=300)).data, "the dashboard draws itself"
                dashboards = server.children(recursive=True)
                server.send_signal(end)
                await asyncio.to_thread(server.wait)
            return dashboards

        dashboards = asyncio.run(open_two_and_end_the_server())
        assert len(dashboards) >= 2
        _, alive = psutil.wait_procs(dashboards, timeout=30)
        for each in alive:
            each.kill()
    assert not alive


def test_no_page_is_larger_than_is_allowed(tmp_path: Path) -> None:
    """Textual keeps every cell of a screen."""

    async def work(session: aiohttp.ClientSession, url: str) -> None:
        page = await opened(session, url)
        async with session.ws_connect(f"{page}ws?width={10**9}&height=-5") as socket_:
            assert (await socket_.receive(timeout=300)).data.startswith(b"1000x1 ")
            for size, shown in ((10**30, b"1000x1000"), (-1, b"1x1"), ("many", b"80x24"), (None, b"80x24")):
                await socket_.send_json(["resize", {"width": size, "height": size}])
                assert (await socket_.receive(timeout=300)).data == shown

    visit_program(tmp_path, work)


@pytest.mark.parametrize("message", ["no JSON", "[]", "{}", '["resize"]', '["resize", 1]', '["stdin", 5]'])
def test_a_message_that_is_none_ends_its_page_alone(message: str, tmp_path: Path) -> None:
    async def work(session: aiohttp.ClientSession, url: str) -> None:
        page = await opened(session, url)
        async with session.ws_connect(f"{page}ws") as socket_:
            await socket_.receive(timeout=300)
            await socket_.send_str(message)
            assert (await socket_.receive(timeout=300)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        assert await status(session, page) == 200

    visit_program(tmp_path, work)


def test_there_are_only_so_many_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_server, "MOST_PAGES", 2)

    async def work(session: aiohttp.ClientSession, url: str) -> None:
        page = await opened(session, url)
        first = await session.ws_connect(f"{page}ws")
        async with session.ws_connect(f"{page}ws"):
            assert await status(session, f"{page}ws", headers={"Upgrade": "websocket"}) == 503
        await first.close()
        await asyncio.sleep(0.5)
        async with session.ws_connect(f"{page}ws") as socket_:
            assert (await socket_.receive(timeout=300)).data.startswith(b"80x24")

    visit_program(tmp_path, work)


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
    monkeypatch.delitem(sys.modules, "tui.guarded_server", raising=False)
    with pytest.raises(UserError, match="the extra `web`") as caught:
        serve.make_server((), 1234, TOKEN)
    assert "pip install 'hv15[web]'" in caught.value.hint
