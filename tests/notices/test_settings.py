"""The user's settings for all projects, and what a project changes in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hv15.notices.mentioned import are_mentioned, users_file
from hv15.notices.readiness import is_wanted, missing, places
from hv15.notices.settings import lenient_settings, notify_settings
from hv15.records.problems import ConfigError


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    file = users_file()
    assert file == tmp_path / "home/hv15/notify.yaml"
    file.parent.mkdir(parents=True)
    return file


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def test_a_project_changes_single_settings(users: Path, config: Path) -> None:
    users.write_text("ntfy: mine\nntfy_token_env: TOKEN\nevents: [failure]\n")
    config.write_text("notify: {events: [end], details: true}\n")
    found = notify_settings(config)
    assert (found.ntfy, found.ntfy_token_env, found.events, found.details) == ("mine", "TOKEN", ("end",), True)
    assert notify_settings(config, {"notify": {"events": ["stall"]}}).events == ("stall",)
    assert notify_settings(None).events == ("failure",)


def test_a_place_of_the_project_does_not_get_the_users_token(users: Path, config: Path) -> None:
    users.write_text(
        "notify: {ntfy: mine, ntfy_token_env: TOKEN, webhook: 'https://mine.org', webhook_format: slack}\n"
    )
    config.write_text("notify: {ntfy: https://elsewhere.org/theirs, webhook: null}\n")
    found = notify_settings(config)
    assert (found.ntfy, found.ntfy_token_env) == ("https://elsewhere.org/theirs", None)
    assert (found.webhook, found.webhook_format) == (None, "json")


def test_a_fault_is_said_with_its_file_and_line(users: Path, config: Path) -> None:
    users.write_text("ntfy: mine\nstall_minute: 3\n")
    config.write_text("task: t2v\n")
    with pytest.raises(ConfigError) as caught:
        notify_settings(config)
    assert caught.value.message == f"{users}:2:1 stall_minute: unknown key; did you mean 'stall_minutes'?"
    users.write_text("ntfy: mine\n")
    config.write_text("task: t2v\nnotify:\n  events: [ending]\n")
    with pytest.raises(ConfigError, match=r"config.yaml:3:12 notify.events\[0\]: found 'ending', expected one of end"):
        notify_settings(config)


def test_a_run_uses_what_is_right(users: Path, config: Path) -> None:
    """A config that is wrong elsewhere, or in the section, or not YAML at all: its failure is to be told."""
    users.write_text("ntfy: mine\n")
    config.write_text("notify: {events: [failure]}\ntrain: {nothing: 1}\n")
    assert lenient_settings(config)[0].events == ("failure",)
    for wrong in ("notify: {events: [ending]}\n", "notify: 3\n", "notify: [\n", "- a list\n"):
        config.write_text(wrong)
        found, problems = lenient_settings(config)
        assert (found.ntfy, len(problems)) == ("mine", 1)
    config.write_text("notify: {webhook: 'https://example.org'}\n")
    users.write_text("ntfy: 3\n")
    found, problems = lenient_settings(config)
    assert (found.webhook, found.ntfy) == ("https://example.org", None)
    assert "notify.yaml:1:7 ntfy: found 3, expected text" in problems[0]


def test_what_is_missing_and_where_notices_go_is_said_without_secrets(tmp_path: Path, config: Path) -> None:
    (tmp_path / "tell").write_text("#!/bin/sh\n")
    topic = "ntfy: 'https://ntfy.example.org/${TOPIC}', ntfy_token_env: TOKEN"
    config.write_text(f"notify: {{{topic}, webhook: '${{HOOK}}', command: [./tell]}}\n")
    found = notify_settings(config)
    assert [*places(found).values()] == ["ntfy (ntfy.example.org)", "webhook (HOOK)", "command (tell)"]
    assert [*missing(found, tmp_path, {"TOKEN": " ", "HOOK": "a secret", "PATH": "/bin"})] == [
        "notify.ntfy: the environment variable TOPIC is not set",
        "notify.ntfy_token_env: the environment variable TOKEN is not set",
        "notify.webhook: with the value of HOOK it is no address",
        "notify.command: there is no program ./tell",
    ]
    (tmp_path / "tell").chmod(0o755)
    full = {"TOKEN": "1", "HOOK": "https://example.org", "TOPIC": "1", "PATH": "/bin"}
    assert [*missing(found, tmp_path, full)] == []
    assert not is_wanted(found.model_copy(update={"events": ()}))


def test_a_run_of_a_project_that_says_no_word_of_them_loads_no_settings(users: Path, config: Path) -> None:
    config.write_text("task: t2v\n")
    assert not are_mentioned(config, {"task": "i2v"})
    assert are_mentioned(config, {"notify": {}})
    for text in ("notify: {ntfy: mine}\n", '"notif\\x79": {ntfy: mine}\n'):
        config.write_text(text)
        assert notify_settings(config).ntfy == "mine"
        assert are_mentioned(config, {})
    config.write_text("task: t2v\n")
    users.write_text("ntfy: mine\n")
    assert are_mentioned(config, {})
    code = "import sys, hv15.runs.events; print('hv15.config' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"
