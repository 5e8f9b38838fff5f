"""Sends a notice to the places that the settings name: each within a time limit, with few tries, and never raising."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote

from hv15 import __version__
from hv15.config.addresses import parsed, with_variables, without_secrets
from hv15.config.notify import NotifySettings
from hv15.environment import RUN_VARIABLES
from hv15.notices.readiness import NTFY_SERVER, places, program
from hv15.records.fields import to_json
from hv15.records.json_values import JsonObject
from hv15.records.notices import Notice, NoticeDelivery
from hv15.terminal_text import clean, one_line

ANSWER_S = 10.0
"""How long a server may take to answer."""
PAUSES_S = (2.0, 8.0)
"""Before the second try, and before the third and last."""
COMMAND_S = 30.0
"""How long a command may take."""
ALL_S = 50.0
"""How long all of them may take together."""
LONGEST_TEXT = 1500
"""Characters: Discord takes 2000, ntfy 4096 bytes."""
_PRIORITIES = {"failure": 4, "stall": 4}
_TAGS = {"end": "white_check_mark", "failure": "x", "stall": "hourglass", "test": "wave"}
_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class _NotSentError(Exception):
    """A try that did not work: why, in words that tell no secret."""

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again
        """Whether another try may work."""


def deliver(
    notice: Notice, settings: NotifySettings, root: Path, *, pauses: tuple[float, ...] = PAUSES_S, limit: float = ALL_S
) -> list[NoticeDelivery]:
    """Send a notice everywhere at once, and say for each place whether that worked.

    Args:
        notice: what is told.
        settings: where it goes.
        root: the project folder.
        pauses: the seconds before each further try.
        limit: the seconds after which no place is waited for any more.
    """
    works: dict[str, Callable[[], None]] = {
        "ntfy": lambda: _tried(lambda: _to_ntfy(notice, settings), pauses),
        "webhook": lambda: _tried(lambda: _to_webhook(notice, settings), pauses),
        "command": lambda: _run_command(notice, settings, root),
    }
    found: dict[str, str] = {}  # the reason by place, "" if it was sent
    threads = []
    for name in places(settings):
        # A daemon: this process ends though a server drips its answer.
        thread = threading.Thread(target=_noted, args=(found, name, works[name]), daemon=True)
        thread.start()
        threads.append(thread)
    deadline = time.monotonic() + limit
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    reasons = {name: found.get(name, f"no answer within {limit:.0f} s") for name in places(settings)}
    return [
        NoticeDelivery(event=notice.event, to=place, sent=not reasons[name], reason=reasons[name])
        for name, place in places(settings).items()
    ]


def _noted(found: dict[str, str], name: str, work: Callable[[], None]) -> None:
    try:
        work()
    except _NotSentError as error:
        found[name] = one_line(str(error))
    except Exception as error:  # its message may hold what was sent
        found[name] = type(error).__name__
    else:
        found[name] = ""


def _tried(send: Callable[[], None], pauses: tuple[float, ...]) -> None:
    for pause in pauses:
        try:
            return send()
        except _NotSentError as error:
            if not error.again:
                raise
        time.sleep(pause)
    return send()


# -- servers ----------------------------------------------------------------------------------------------------------


def _to_ntfy(notice: Notice, settings: NotifySettings) -> None:
    address = _address(settings.ntfy or "", "ntfy")
    if "/" not in address:
        address = f"{NTFY_SERVER}/{address}"
    parts = parsed(address)
    if parts is None:
        raise _NotSentError("what notify.ntfy gives is no address")
    folder, _, topic = parts.path.rstrip("/").rpartition("/")
    content: JsonObject = {
        "topic": unquote(topic),
        "title": notice.title,
        "message": notice.text[:LONGEST_TEXT],
        "priority": _PRIORITIES.get(notice.event, 3),
        "tags": [_TAGS[notice.event]],
    }
    server = parts._replace(path=f"{folder}/", query="", fragment="").geturl()
    _post(server, content, settings.ntfy_token_env)


def _to_webhook(notice: Notice, settings: NotifySettings) -> None:
    address = _address(settings.webhook or "", "webhook")
    if parsed(address) is None:
        raise _NotSentError("what notify.webhook gives is no address")
    content: Mapping[str, JsonObject] = {
        "json": to_json(notice),
        "slack": {"text": f"*{notice.title}*\n{notice.text[:LONGEST_TEXT]}".translate(_SLACK)},
        "discord": {
            "content": f"**{notice.title}**\n{notice.text[:LONGEST_TEXT]}"[:2000],
            "allowed_mentions": {"parse": []},  # a folder called @everyone calls nobody
        },
    }
    _post(address, content[settings.webhook_format], settings.webhook_token_env)


def _address(setting: str, name: str) -> str:
    try:
        return with_variables(setting)
    except KeyError as error:
        raise _NotSentError(f"the environment variable {error.args[0]} is not set (notify.{name})") from None


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """A redirection is not followed: it would lose the notice, and take the token elsewhere."""

    def redirect_request(self, *_: object) -> None:
        return None


def _post(address: str, content: JsonObject, token_env: str | None) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": f"hv15/{__version__}"}
    if token_env is not None:
        token = os.environ.get(token_env, "").strip()
        if not token:
            raise _NotSentError(f"the environment variable {token_env} is not set")
        if not (token.isascii() and token.isprintable()):
            raise _NotSentError(f"the value of {token_env} cannot be a token")
        headers["Authorization"] = f"Bearer {token}"
    data = json.dumps(content).encode()
    try:
        request = urllib.request.Request(address, data, headers, method="POST")
        with urllib.request.build_opener(_NoRedirection()).open(request, timeout=ANSWER_S) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as error:
        with error:
            said = f"the server answered {error.code} {clean(error.reason or '')}".strip()
        if 300 <= error.code < 400:
            raise _NotSentError(f"{said}: it has moved to another address") from None
        raise _NotSentError(said, again=error.code >= 500 or error.code == 429) from None
    except urllib.error.URLError as error:
        raise _NotSentError(f"no connection: {clean(str(error.reason))}", again=True) from None
    except TimeoutError:
        raise _NotSentError(f"no answer within {ANSWER_S:.0f} s", again=True) from None
    except (OSError, HTTPException) as error:
        raise _NotSentError(f"the connection broke ({type(error).__name__})", again=True) from None


# -- a command --------------------------------------------------------------------------------------------------------


def _run_command(notice: Notice, settings: NotifySettings, root: Path) -> None:
    """Run the command once: what has failed in the middle may have told it already."""
    words = [_filled(word, notice) for word in settings.command]
    path = program(words[0], root)
    if path is None:
        raise _NotSentError(f"there is no program {words[0]}")
    with tempfile.TemporaryFile() as text, tempfile.TemporaryFile() as output:  # a pipe may be full, or held open
        text.write(f"{notice.text}\n".encode("utf-8", "backslashreplace"))
        text.seek(0)
        try:
            process = subprocess.Popen(
                [path, *words[1:]],
                cwd=root,
                env=_environment(notice),
                stdin=text,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise _NotSentError(f"{words[0]} cannot be run: {error.strerror}") from None
        try:
            code = process.wait(COMMAND_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise _NotSentError(f"{words[0]} was ended after {COMMAND_S:.0f} s") from None
        if code:
            output.seek(0, os.SEEK_END)
            output.seek(max(0, output.tell() - 4096))
            lines = [line for each in output.read().splitlines() if (line := clean(each).strip())]
            ended = f"exit code {code}" if code > 0 else f"signal {-code}"
            said = f": {without_secrets(lines[-1])[:200]}" if lines else ""
            raise _NotSentError(f"{words[0]} ended with {ended}{said}")


def _filled(word: str, notice: Notice) -> str:
    """Put the notice into a word of the command. What is put in is not looked through again."""
    values = {"title": notice.title, "text": notice.text, "event": notice.event, "project": notice.project}
    values["state"] = notice.state or ""
    return re.sub(r"\{(title|text|event|project|state)\}", lambda match: values[match[1]], word)


def _environment(notice: Notice) -> dict[str, str]:
    told = {name: str(value) for name, value in to_json(notice).items() if isinstance(value, str)}
    own = {name: value for name, value in os.environ.items() if name not in RUN_VARIABLES}
    fields = {f"HV15_NOTICE_{name.upper()}": value for name, value in told.items()}
    return {**own, **fields, "HV15_NOTICE_JSON": json.dumps(to_json(notice))}
