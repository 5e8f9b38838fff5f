"""Sending: to a real server on this machine, by a real program."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hv15.config.notify import NotifySettings
from hv15.notices import delivery
from hv15.notices.delivery import deliver
from hv15.notices.wording import notice_of_test
from hv15.records.notices import Notice
from tests.notices.servers import Inbox, inbox

NOTICE = Notice(
    event="failure", title="hv15: @everyone <!channel> failed", text="1 & 2\nüber", project="cats", state="failed"
)
SECRET = "tk_AgQdq7mVBoFD37zQVN29RhuMzNIz2"


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def box() -> Iterator[Inbox]:
    with inbox() as found:
        yield found


def told(root: Path, pauses: Sequence[float] = (0.0, 0.0), **settings: Any) -> list[str]:
    found = deliver(NOTICE, NotifySettings.model_validate(settings), root, pauses=tuple(pauses))
    return [str(each) for each in found]


def test_ntfy_gets_a_message_at_its_root_with_the_token(
    box: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HV15_TEST_TOKEN", f"{SECRET}\n")
    assert told(tmp_path, ntfy=f"{box.address}/my-runs", ntfy_token_env="HV15_TEST_TOKEN")[0].endswith(": sent")
    [found] = box.requests
    assert found.path == "/"
    assert found.headers["Authorization"] == f"Bearer {SECRET}"
    assert found.content == {
        "topic": "my-runs",
        "title": NOTICE.title,
        "message": NOTICE.text,
        "priority": 4,
        "tags": ["x"],
    }


def test_a_bare_topic_is_one_of_the_public_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    posted: list[str] = []
    monkeypatch.setattr(
        delivery, "_post", lambda address, content, token: posted.append(f"{address} {content['topic']}")
    )
    monkeypatch.setenv("HV15_TEST_TOPIC", "mine")
    assert told(tmp_path, ntfy="my-runs") == ["ntfy (ntfy.sh): sent"]
    assert told(tmp_path, ntfy="${HV15_TEST_TOPIC}") == ["ntfy (HV15_TEST_TOPIC): sent"]
    assert posted == ["https://ntfy.sh/ my-runs", "https://ntfy.sh/ mine"]


def test_a_webhook_gets_all_fields_or_the_message_of_a_chat(box: Inbox, tmp_path: Path) -> None:
    for style in ("json", "slack", "discord"):
        told(tmp_path, webhook=f"{box.address}/hook", webhook_format=style)
    everything, slack, discord = box.contents
    assert everything["version"] == 1
    assert everything.keys() == {
        *("version", "event", "title", "text", "project", "time", "run", "state", "started", "seconds", "jobs"),
        *("training", "saved_step", "failed", "running", "silent_s", "details"),
    }
    assert slack == {"text": "*hv15: @everyone &lt;!channel&gt; failed*\n1 &amp; 2\nüber"}
    assert discord["content"].startswith("**hv15: @everyone")
    assert discord["allowed_mentions"] == {"parse": []}


@pytest.mark.parametrize(
    ("codes", "count", "said"),
    [
        ([500, 429], 3, "sent"),
        ([503, 503, 503], 3, "not sent: the server answered 503 Service Unavailable"),
        ([403], 1, "not sent: the server answered 403 Forbidden"),
        ([302], 1, "not sent: the server answered 302 Found: it has moved to another address"),
    ],
)
def test_it_is_tried_again_if_that_may_help(codes: list[int], count: int, said: str, tmp_path: Path) -> None:
    with inbox(codes) as box:
        assert told(tmp_path, webhook=f"{box.address}/hook") == [f"webhook ({box.address[7:]}): {said}"]
    assert len(box.requests) == count


def test_no_server_no_answer_and_a_broken_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(delivery, "ANSWER_S", 0.05)
        assert told(tmp_path, (), webhook=f"http://{address}/") == [
            f"webhook ({address}): not sent: no answer within 0 s"
        ]
    [said] = told(tmp_path, webhook=f"http://{address}/")
    assert said == f"webhook ({address}): not sent: no connection: [Errno 111] Connection refused"


def test_after_the_limit_nothing_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = NotifySettings(webhook=f"http://127.0.0.1:{silent.getsockname()[1]}/")
        began = time.monotonic()
        [found] = deliver(NOTICE, settings, tmp_path, limit=0.05)
        assert time.monotonic() - began < 5
    assert found.reason == "no answer within 0 s"


def test_no_reason_tells_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (f"https://me:{SECRET}@nowhere.invalid:99999/", f"nonsense {SECRET}", f"file:///{SECRET}", ""):
        monkeypatch.setenv("HV15_TEST_HOOK", value)
        [said] = told(tmp_path, (), webhook="${HV15_TEST_HOOK}")
        assert "not sent" in said
        assert SECRET not in said
    monkeypatch.setenv("HV15_TEST_TOKEN", f"{SECRET}\r\nX: y")
    with inbox() as box:
        [said] = told(tmp_path, webhook=box.address, webhook_token_env="HV15_TEST_TOKEN")
    assert said.endswith("not sent: the value of HV15_TEST_TOKEN cannot be a token")


def test_a_command_gets_the_text_words_and_variables_without_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HV15_RUN", "this-run")
    (tmp_path / "tell").write_text('#!/bin/sh\nprintf "%s|" "$@" > args; cat > text; env > variables\n')
    (tmp_path / "tell").chmod(0o755)
    assert told(tmp_path, command=["./tell", "{title}", "{state}: {text}", "$(touch broken)", "{other}"]) == [
        "command (tell): sent"
    ]
    assert (tmp_path / "args").read_text() == f"{NOTICE.title}|failed: {NOTICE.text}|$(touch broken)|{{other}}|"
    assert (tmp_path / "text").read_text() == f"{NOTICE.text}\n"
    variables = (tmp_path / "variables").read_text()
    assert f"HV15_NOTICE_TITLE={NOTICE.title}\n" in variables
    assert "HV15_NOTICE_EVENT=failure\n" in variables
    assert "HV15_RUN=" not in variables, "what it starts is no process of the run"
    [line] = [line for line in variables.splitlines() if line.startswith("HV15_NOTICE_JSON=")]
    assert json.loads(line.partition("=")[2])["project"] == "cats"
    assert not (tmp_path / "broken").exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo first; echo no account >&2; exit 3", "tell ended with exit code 3: no account"),
        ("kill -9 $$", "tell ended with signal 9"),
        ("sleep 60 & sleep 60", "tell was ended after 0 s"),
    ],
)
def test_a_command_that_fails(script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "COMMAND_S", 0.2 if "sleep" in script else 20)
    (tmp_path / "tell").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "tell").chmod(0o755)
    assert told(tmp_path, command=[str(tmp_path / "tell")])[0] == f"command (tell): not sent: {tmp_path}/{said}"


def test_what_a_command_prints_tells_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HV15_TEST_HOOK", "https://chat/plain-words")
    (tmp_path / "tell").write_text(f'#!/bin/sh\necho "404 of $HV15_TEST_HOOK as {SECRET}: no such hook"; exit 1\n')
    (tmp_path / "tell").chmod(0o755)
    assert told(tmp_path, command=["./tell"])[0].endswith("404 of ${HV15_TEST_HOOK} as ***: no such hook")


def test_a_test_tells_the_projects_name_only(tmp_path: Path) -> None:
    found = notice_of_test(os.fsdecode(b"c\xe4ts\n"))
    assert found.title == "hv15: a test from c\\udce4ts␊"
    assert found.run is None
