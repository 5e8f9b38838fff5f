"""`hv15 notify`, and what `hv15 check` says of notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hv15.commands.notify import notify_checks
from hv15.project import Project
from tests.commands.workbench import Said, hv15, is_a_refusal
from tests.notices.servers import Inbox, inbox


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with inbox() as found:
        yield found


def notify(root: Path, section: str, *words: str) -> Said:
    (root / "config.yaml").write_text(f"models: {{source: demo}}\nnotify: {section}\n")
    return hv15("notify", *words, root)


def test_a_test_arrives_and_says_so(tmp_path: Path, box: Inbox) -> None:
    said = notify(tmp_path, f"{{webhook: {box.address}/hook, ntfy: {box.address}/runs}}", "--test")
    assert said.out == f"ntfy ({box.address[7:]}): sent\nwebhook ({box.address[7:]}): sent\n"
    assert said.code == 0
    assert {each.get("title") for each in box.contents} == {f"hv15: a test from {tmp_path.name}"}


def test_a_test_that_does_not_arrive_has_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HV15_TEST_TOKEN", raising=False)
    said = notify(tmp_path, "{ntfy: runs, ntfy_token_env: HV15_TEST_TOKEN}", "--test")
    assert said.out == "ntfy (ntfy.sh): not sent: the environment variable HV15_TEST_TOKEN is not set\n"
    assert said.code == 1


def test_without_test_it_says_what_is_set_and_what_is_missing(tmp_path: Path, box: Inbox) -> None:
    said = notify(tmp_path, f"{{webhook: {box.address}, command: [./tell], details: true}}")
    assert said.out == (
        f"notices: end, failure, stall after 30 minutes, with details, by webhook ({box.address[7:]}), command (tell)\n"
        "  note: notify.command: there is no program ./tell\n"
    )
    assert box.contents == []


def test_it_works_without_a_project_by_the_users_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, box: Inbox
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    is_a_refusal(hv15("notify", tmp_path), ("no place is set for them", f"{tmp_path}/home/hv15/notify.yaml"))
    (tmp_path / "home/hv15").mkdir(parents=True)
    (tmp_path / "home/hv15/notify.yaml").write_text(f"ntfy: {box.address}/runs\n")
    assert hv15("notify", "--test", tmp_path).code == 0
    assert len(box.contents) == 1
    is_a_refusal(hv15("notify", tmp_path / "nowhere"), ("nowhere: no such f",))


def test_check_says_where_notices_go_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HV15_TEST_HOOK", raising=False)
    config = tmp_path / "config.yaml"
    config.write_text("models: {source: demo}\nnotify: {webhook: '${HV15_TEST_HOOK}', command: [no-such-program]}\n")
    found = [(each.state, each.text, each.place.setting) for each in notify_checks(Project(config))]
    assert found == [
        (
            "ok",
            "end, failure, stall after 30 minutes, by webhook (HV15_TEST_HOOK), command (no-such-program)",
            ("notify",),
        ),
        ("note", "on this machine: the environment variable HV15_TEST_HOOK is not set", ("notify", "webhook")),
        ("note", "on this machine: there is no program no-such-program", ("notify", "command")),
    ]
    config.write_text("models: {source: demo}\n")
    assert [*notify_checks(Project(config))] == []
