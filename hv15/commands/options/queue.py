"""Arguments of `hv15 queue`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Annotated, ClassVar

from hv15.arguments import Argument, Command, Entry, Group
from hv15.records.paths import ProjectPaths

Names = Annotated[
    tuple[str, ...],
    Argument("their numbers in the queue, or their folders", positional=True, metavar="PROJECT", several="+"),
]
AtOnce = Annotated[
    int | None, Argument("run so many at the same time, each with all GPUs (one)", metavar="N", flags=("--at-once",))
]
PerDevice = Annotated[bool, Argument("run one on each GPU")]


@dataclass(frozen=True, kw_only=True)
class QueueList(Command):
    """Show the queue: what runs, waits and has ended."""

    name: ClassVar[str] = "list"
    json: Annotated[bool, Argument("for programs")] = False

    def run(self) -> None:
        from hv15.commands.queue import show

        show(self)


@dataclass(frozen=True, kw_only=True)
class QueueAdd(Command):
    """Add projects at the end: they run one after the other, also when you log out."""

    name: ClassVar[str] = "add"
    words: Annotated[
        tuple[str, ...],
        Argument(
            "folders or config files (here), then what to make of each: a file, samples, experiments",
            positional=True,
            metavar="PROJECT",
            several="*",
        ),
    ] = ()
    target: Annotated[tuple[str, ...], Argument(f"what to make of each; may be repeated ({ProjectPaths().lora})")] = ()
    unchecked: Annotated[bool, Argument("do not look now whether they can be run: what they need comes later")] = False
    at_once: AtOnce = None
    per_device: PerDevice = False
    snakemake: Annotated[
        tuple[str, ...], Argument("pass all that follows to snakemake", metavar="WORDS", several=argparse.REMAINDER)
    ] = ()

    def run(self) -> None:
        from hv15.commands.queue import add

        add(self)


@dataclass(frozen=True, kw_only=True)
class QueueRemove(Command):
    """Remove projects that do not run."""

    name: ClassVar[str] = "remove"
    names: Names

    def run(self) -> None:
        from hv15.commands.queue import remove

        remove(self)


@dataclass(frozen=True, kw_only=True)
class QueueMove(Command):
    """Move a project that waits: to a place (1 is the next), or first, up, down, last."""

    name: ClassVar[str] = "move"
    project: Annotated[str, Argument("its number in the queue, or its folder", positional=True)]
    to: Annotated[str, Argument("its new place, or first, up, down, last", positional=True)]

    def run(self) -> None:
        from hv15.commands.queue import move

        move(self)


@dataclass(frozen=True, kw_only=True)
class QueueStop(Command):
    """Save and stop running projects, as `hv15 stop` does; the queue continues with the next."""

    name: ClassVar[str] = "stop"
    names: Names

    def run(self) -> None:
        from hv15.commands.queue import stop

        stop(self)


@dataclass(frozen=True, kw_only=True)
class QueueRetry(Command):
    """Let projects that failed or were stopped wait again."""

    name: ClassVar[str] = "retry"
    names: Annotated[
        tuple[str, ...],
        Argument("their numbers, or their folders (all of them)", positional=True, metavar="PROJECT", several="*"),
    ] = ()

    def run(self) -> None:
        from hv15.commands.queue import retry

        retry(self)


@dataclass(frozen=True, kw_only=True)
class QueueClear(Command):
    """Forget the projects that have ended; their files stay."""

    name: ClassVar[str] = "clear"

    def run(self) -> None:
        from hv15.commands.queue import clear

        clear(self)


@dataclass(frozen=True, kw_only=True)
class QueuePause(Command):
    """Start no further project; what runs continues."""

    name: ClassVar[str] = "pause"
    stop: Annotated[bool, Argument("also save and stop what runs; `resume` continues it first")] = False

    def run(self) -> None:
        from hv15.commands.queue import pause

        pause(self)


@dataclass(frozen=True, kw_only=True)
class QueueResume(Command):
    """Continue a queue that was paused."""

    name: ClassVar[str] = "resume"

    def run(self) -> None:
        from hv15.commands.queue import resume

        resume(self)


@dataclass(frozen=True, kw_only=True)
class QueueMode(Command):
    """Say how many projects run at the same time, from now on."""

    name: ClassVar[str] = "mode"
    at_once: AtOnce = None
    per_device: PerDevice = False

    def run(self) -> None:
        from hv15.commands.queue import mode

        mode(self)


QUEUE_COMMANDS: tuple[Entry, ...] = (
    Group(
        "queue",
        "run several projects, one after the other or one on each GPU, also when you log out",
        (
            *(QueueList, QueueAdd, QueueRemove, QueueMove, QueueStop),
            *(QueueRetry, QueueClear, QueuePause, QueueResume, QueueMode),
        ),
        metavar="COMMAND",
        default=QueueList,
    ),
)
