"""The `hv15` command: the stages of the workflow, which the rules call too, and commands for people.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from types import TracebackType

from hv15 import __version__
from hv15.arguments import Command, Parser, add_commands, chosen_command
from hv15.commands.ending import AskedToEnd, tidy_end
from hv15.commands.options import COMMANDS
from hv15.commands.options.base import SettingsCommand
from hv15.compiler_errors import of_the_compiler
from hv15.errors import INTERRUPTED, USER_ERROR, UserError, of_the_system
from hv15.operating_system import require_linux
from hv15.out_of_memory import OutOfMemory, is_out_of_memory, without_stage
from hv15.output import UNREAD, drop_output, with_flushed_output
from hv15.ranks import may_speak
from hv15.terminal_text import cleaned


@with_flushed_output
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names that are not UTF-8 are escaped, as on stderr
        sys.stdout.reconfigure(errors="backslashreplace")
    with cleaned():
        command = parse(arguments)
        if not command.draws:
            with tidy_end():
                return _run(command)
    return _run(command)


def _run(command: Command) -> int:
    try:
        require_linux()
    except UserError as error:  # checked before anything is imported that other systems lack
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    try:
        return command.run() or 0
    except BrokenPipeError:
        if isinstance(command, SettingsCommand) and command.stage:  # its product is not made
            drop_output()
            print("error: the reader of the output is gone", file=sys.stderr)
            return UNREAD
        raise
    except AskedToEnd:
        raise
    except BaseException as error:
        from hv15.runs.failures import write_failure

        explained = _explained(error, command)
        write_failure(explained)
        if isinstance(explained, KeyboardInterrupt):
            _say("stopped; what is finished is kept: run the same command to continue")
            return INTERRUPTED
        if not isinstance(explained, UserError):
            sys.excepthook = _show_traceback
            raise
        _say(f"error: {explained}")
        return USER_ERROR


def _say(words: str) -> None:
    """Say why the command ends; of several processes that work together, one does."""
    if may_speak():
        print(words, file=sys.stderr)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    with cleaned():
        sys.__excepthook__(kind, error, trace)


def parse(arguments: Sequence[str] | None = None) -> Command:
    """Read a command line (by default that of this process) into the command that it names.

    Raises:
        SystemExit: it cannot be read, as stderr says; or help or the version was asked for.
    """
    parser = Parser("hv15", description="HunyuanVideo 1.5 LoRAs: encode, train, sample, convert.")
    parser.add_argument("--version", action="version", version=f"hv15 {__version__}")
    words = sys.argv[1:] if arguments is None else arguments
    named = [entry for entry in COMMANDS if entry.name == words[0]] if words else []
    add_commands(parser, named or COMMANDS)  # argparse makes a parser for each, of which one is used
    return chosen_command(parser.parse_args(words))


def _explained(error: BaseException, command: Command) -> BaseException:
    """The error in plain words: of memory, with the settings that would help; of a path; of torch.compile."""
    stage = command.stage if isinstance(command, SettingsCommand) else None
    if not isinstance(error, UserError) and is_out_of_memory(error):
        error = OutOfMemory(stage, error) if stage else without_stage(error)
    elif (of_compile := of_the_compiler(error)) is not None:
        return of_compile
    elif isinstance(error, OSError) and error.filename is not None:
        return of_the_system(error)
    if isinstance(error, OutOfMemory) and isinstance(command, SettingsCommand):
        from hv15.commands.plan import explain

        error.hint = explain(error, command).hint
    return error


if __name__ == "__main__":
    sys.exit(main())
