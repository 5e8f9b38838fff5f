"""The settings of notices: addresses without secrets, which a message never repeats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hv15.config import Settings, load_config
from hv15.config.addresses import with_variables
from hv15.config.fields import fields
from hv15.config.notify import NotifySettings
from hv15.config.section import Affects
from hv15.records.problems import ConfigError

TOKEN = "tk_AgQdq7mVBoFD37zQVN29RhuMzNIz2"
SLACK = "T0123ABCD/B0123ABCD/a1B2c3D4e5F6g7H8i9J0k1L2"

GOOD: list[dict[str, Any]] = [
    {"ntfy": "my-runs"},
    {"ntfy": "https://ntfy.example.org/my-runs"},
    {"ntfy": "https://ntfy.example.org/runs-a8f3k2m9x7q1z5b2"},
    {"ntfy": "${NTFY_TOPIC}"},
    {"ntfy": "https://ntfy.example.org/${NTFY_TOPIC}", "ntfy_token_env": "NTFY_TOKEN"},
    {"webhook": "http://127.0.0.1:8000/hook?project=cats"},
    {"webhook": "${CHAT_WEBHOOK}"},
    {"webhook": "https://hooks.slack.com/services/${SLACK_SECRET}", "webhook_format": "slack"},
    {"webhook": "https://example.org/hook?token=${HOOK_TOKEN}"},
    {"webhook": "https://example.org/a-long-and-readable-name/of-a-hook"},
    {"command": ["mail", "-s", "{title}", "me@example.org"]},
    {"command": ["curl", "-d", "{text}", "https://example.org/hook"]},
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"ntfy": "my runs"}, "expected a topic"),
    ({"ntfy": TOKEN}, "looks like a token, not a topic"),
    ({"ntfy": "ftp://example.org/runs"}, "expected an address such as https://"),
    ({"ntfy": f"https://me:{TOKEN}@example.org/runs"}, "holds a user name or a password"),
    ({"ntfy": f"https://example.org/runs?auth={TOKEN}"}, "a token behind the question mark"),
    ({"ntfy_token_env": TOKEN}, "the name of an environment variable in capitals"),
    ({"webhook": "example.org/hook"}, "expected an address such as https://"),
    ({"webhook": "https:///hook"}, "expected an address such as https://"),
    ({"webhook": "https://example.org:port/"}, "expected an address such as https://"),
    ({"webhook": "https://example.org/a b"}, "expected an address such as https://"),
    ({"webhook": f"https://hooks.slack.com/services/{SLACK}"}, "looks as if a part of it were a token"),
    ({"webhook": "https://hc.example.org/0b5c1f2e-1111-4222-8333-444455556666"}, "a part of it were a token"),
    ({"webhook": "https://example.org/hook?key=short1"}, "a token behind the question mark"),
    ({"webhook": "https://example.org/${NAME:-a1B2c3D4e5F6g7H8}"}, "expected the name of an environment variable"),
    ({"webhook": "https://example.org/$NAME"}, "expected the name of an environment variable"),
    ({"command": ["curl", f"https://example.org/{SLACK}"]}, "were a token"),
    ({"command": ["curl", "-H", f"Authorization: Bearer {TOKEN}"]}, "looks like a token"),
    ({"command": [""]}, "its first word is empty"),
    ({"command": "mail me"}, "Input should be a valid tuple"),
    ({"events": ["end", "end"]}, "names one twice"),
    ({"stall_minutes": 0}, "greater than 0"),
]


@pytest.mark.parametrize("given", GOOD, ids=str)
def test_possible_settings(given: dict[str, Any]) -> None:
    NotifySettings.model_validate(given)


@pytest.mark.parametrize(("given", "said"), BAD, ids=str)
def test_impossible_settings(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        NotifySettings.model_validate(given)


def test_a_secret_is_refused_at_its_line_without_being_repeated(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    hook = f"https://hooks.slack.com/services/{SLACK}"
    config.write_text(f"task: t2v\nnotify:\n  webhook: {hook}\n  ntfy_token_env: {TOKEN}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(config)
    first, second = map(str, caught.value.problems)
    assert first.startswith(f"{config}:3:12 notify.webhook: looks as if a part of it were a token: keep it in an")
    assert second.startswith(f"{config}:4:19 notify.ntfy_token_env: expected the name of an environment variable")
    assert SLACK not in first
    assert TOKEN not in second


def test_no_result_depends_on_notices(tmp_path: Path) -> None:
    """They are in no digest and in no file that is made."""
    config = tmp_path / "config.yaml"
    config.write_text("models: {source: demo}\n")
    plain = load_config(config)
    told = load_config(config, {"notify": {"ntfy": "my-runs", "details": True}})
    assert plain.dump() == told.dump()
    assert "notify" not in plain.dump()
    marks = {each.path: each.affects for each in fields(Settings) if each.path.startswith("notify.")}
    assert len(marks) == len(NotifySettings.model_fields)
    assert {*marks.values()} == {Affects.WATCHING}


def test_an_experiment_has_no_notices_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="notify cannot differ between experiments"):
        load_config(tmp_path / "config.yaml", text="models: {source: demo}\nexperiments: {a: {notify.ntfy: my-runs}}\n")


def test_values_of_variables_are_put_in_at_the_end() -> None:
    values = {"A": "one\n", "B": "${A}"}
    assert with_variables("https://${A}.org/${B}", values) == "https://one.org/${A}"
    with pytest.raises(KeyError, match="C"):
        with_variables("${C}", values)
