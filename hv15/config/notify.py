"""`notify:` notices of the end of a run, of a failure, and of a run that does not go on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from hv15.config.addresses import check_address, is_secret, parsed, refuse_secrets
from hv15.config.section import Conflict, Section
from hv15.records.notices import NoticeEvent

WEBHOOK = "https://example.org/hook"
NTFY = "https://ntfy.example.org/my-runs"

_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
_ADDRESS = re.compile(r"https?://[!-~]+")
_AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic)\s+(?!\$)\S{6,}")


def check_variable_name(name: str) -> str:
    """Return the name of an environment variable.

    Raises:
        ValueError: it is none. The message does not repeat it, as it may be the secret itself.
    """
    if not _VARIABLE_NAME.fullmatch(name):
        raise ValueError("expected the name of an environment variable in capitals, such as NTFY_TOKEN, not its value")
    return name


VariableName = Annotated[str, AfterValidator(check_variable_name)]


class NotifySettings(Section):
    """Where notices of runs go, and what they tell."""

    events: tuple[NoticeEvent, ...] = ("end", "failure", "stall")
    """What is told. `end`: the run has finished, or was stopped. `failure`: a job has failed, the workflow could not be
    planned, or the run was killed. `stall`: nothing has gone on for `stall_minutes`."""

    ntfy: str | None = Field(None, min_length=1)
    """A topic of ntfy.sh, or the address of one on another server: https://ntfy.example.org/my-runs. Whoever knows a
    topic can read it, so choose one that nobody guesses, or keep it in an environment variable: `${NTFY_TOPIC}`."""

    ntfy_token_env: VariableName | None = None
    """The name of the environment variable that holds ntfy's access token, if the topic needs one: NTFY_TOKEN."""

    webhook: str | None = Field(None, min_length=1)
    """An address to which each notice is posted as JSON (docs/notices.md). If the address itself is a secret, as that
    of a chat is, keep it in an environment variable: `${CHAT_WEBHOOK}`."""

    webhook_format: Literal["json", "slack", "discord"] = "json"
    """What is posted: all fields, or a message for Slack (Mattermost, Rocket.Chat) or Discord."""

    webhook_token_env: VariableName | None = None
    """The name of the environment variable whose value is sent to the webhook as `Authorization: Bearer`."""

    command: tuple[str, ...] = ()
    """A program with its arguments, as a list: [mail, -s, "{title}", me@example.org]. It is run in the project's
    folder, without a shell, and gets the text as its input. `{title}`, `{text}`, `{event}`, `{state}` and `{project}`
    are replaced in its arguments; HV15_NOTICE_TITLE and so on, and HV15_NOTICE_JSON, are in its environment."""

    details: bool = False
    """Also tell the names of jobs, why they failed, the machine and the folder: causes may name files and quote
    captions. Otherwise only numbers, kinds of jobs and the name of the project's folder are told."""

    stall_minutes: float = Field(30.0, gt=0.0, le=10_000.0)
    """How long nothing may go on (no step, no line of a log) before a stall is told, once until it goes on. The time of
    20 training steps always passes first. On a cluster, waiting in its queue counts."""

    min_minutes: float = Field(0.0, ge=0.0, le=10_000.0)
    """The end or failure of a run that took less is not told."""

    @field_validator("ntfy")
    @classmethod
    def _is_a_topic(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if _TOPIC.fullmatch(value):
            if value.startswith("tk_"):
                raise ValueError("looks like a token, not a topic: ntfy_token_env names a variable with it")
            return value
        if not value.startswith("${") and "://" not in value:
            raise ValueError(f"expected a topic (letters, digits, - and _, at most 64), or an address such as {NTFY}")
        return check_address(value, NTFY, telling_path=True)

    @field_validator("webhook")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        return None if value is None else check_address(value, WEBHOOK)

    @field_validator("command")
    @classmethod
    def _is_a_command(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value and not value[0].strip():
            raise ValueError("its first word is empty, expected a program")
        if any("\0" in word for word in value):
            raise ValueError("a word contains a zero byte")
        for word in value[1:]:
            for found in filter(None, map(parsed, _ADDRESS.findall(word))):
                refuse_secrets(found)
            if _AUTHORIZATION.search(word) or (word.startswith("tk_") and is_secret(word)):
                raise ValueError("a word looks like a token: let the program read it from its environment")
        return value

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        if len({*self.events}) < len(self.events):
            yield ("events",), "names one twice"
