"""Output that cannot be written: what becomes of the program's exit code, and of what it says."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

import pytest

from hv15 import output
from hv15.errors import USER_ERROR
from hv15.output import UNREAD, with_flushed_output


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing can be flushed; what is dropped is listed, and pytest's own stdout stays."""
    dropped: list[str] = []

    def flush() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(output, "flush", flush)
    monkeypatch.setattr(output, "drop_output", lambda: dropped.append("output"))
    return dropped


def ends_with(error: BaseException) -> int:
    @with_flushed_output
    def main(arguments: Sequence[str] | None = None) -> int:
        raise error

    return main()


def test_a_program_that_was_stopped_says_so_also_when_its_reader_has_gone(broken: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        ends_with(SystemExit(3))
    assert (caught.value.code, broken) == (3, ["output"])
    assert ends_with(SystemExit(0)) == 0


def test_an_error_of_something_else_writes_nothing_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TimeoutError):
        ends_with(OSError(errno.ETIMEDOUT, "Connection timed out"))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF])
def test_an_error_of_writing_is_said(number: int, broken: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ends_with(OSError(number, os.strerror(number))) == USER_ERROR
    assert capsys.readouterr().err == f"error: the output cannot be written: {os.strerror(number)}\n"


def test_an_error_about_a_file_stays_one() -> None:
    with pytest.raises(OSError, match="'a file'"):
        ends_with(OSError(errno.ENOSPC, "No space left on device", "a file"))


def test_a_command_that_computes_has_not_succeeded(monkeypatch: pytest.MonkeyPatch) -> None:
    from hv15 import cli
    from hv15.commands.options.stages import Train

    def run(command: Train) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(Train, "run", run)
    monkeypatch.setattr(cli, "drop_output", lambda: None)
    assert cli.main(["train", "nowhere", "--out", "lora.safetensors"]) == UNREAD
