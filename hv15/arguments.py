"""Commands as frozen dataclasses whose fields are their arguments: parser and command cannot differ.

A field's type, its default and the `Argument` beside them describe one argument:

    shard: Annotated[int | None, Argument("one shard only (all)")] = None

becomes `--shard SHARD`. A bool is a switch, a tuple may be given several times, a Literal is a choice, and a field
without a default must be given. argparse does the rest.
"""

from __future__ import annotations

import argparse
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from hv15.terminal_text import one_line

_COMMAND = "_command"
"""The entry of argparse's namespace that holds the class of the chosen command."""


@dataclass(frozen=True)
class Argument:
    """How a field is given on the command line."""

    help: str
    flags: tuple[str, ...] = ()
    """Its options, such as ("--out",). Without any, a field that is not positional gets one made from its name."""
    positional: bool = False
    """Whether it is given without an option. With `flags` as well, it can be given either way, but only once."""
    metavar: str | None = None
    read: Callable[[str], object] | None = None
    """Turns the text into the value, where the field's type cannot. Raises ArgumentTypeError."""
    variable: str | None = None
    """The environment variable that holds the default."""
    several: str | None = None
    """For a tuple: argparse's `nargs` of one option, such as "+"; without it, the option is repeated for each value."""
    heading: str | None = None
    """In the help, the option stands under this heading, after those without one."""


class Command(ABC):
    """One command: its docstring is its help, its fields are its arguments, and `run` does it."""

    name: ClassVar[str]
    """The word that a person types."""
    draws: ClassVar[bool] = False
    """Whether it sends control sequences to the terminal. The output of all other commands is cleaned of them."""

    @abstractmethod
    def run(self) -> int | None:
        """Run the command and return its exit code; None means 0. Heavy imports belong inside."""


@dataclass(frozen=True)
class Group:
    """Commands under one word, such as `hv15 encode latents` and `hv15 encode texts`."""

    name: str
    help: str
    commands: tuple[type[Command], ...]
    metavar: str = "KIND"
    default: type[Command] | None = None
    """What the word does by itself; all its arguments are options."""


Entry = type[Command] | Group


class Parser(argparse.ArgumentParser):
    """Refuses in one line, whatever the words of the command line hold: for `*`, a shell gives names of files."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


class _Parser(Parser):
    """The parser of one entry. It gets its arguments only when it is used: a command line uses one entry of many."""

    entry: Entry

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # as its overloads say
        if isinstance(self.entry, Group):
            default = self.entry.default
            if default is not None:
                self._add_command(default)
            add_commands(self, self.entry.commands, self.entry.metavar, required=default is None)
        else:
            self._add_command(self.entry)
        return super().parse_known_args(args, namespace)

    def _add_command(self, command: type[Command]) -> None:
        _add_arguments(self, command)
        self.set_defaults(**{_COMMAND: command})


def add_commands(
    parser: argparse.ArgumentParser, commands: Sequence[Entry], metavar: str = "COMMAND", *, required: bool = True
) -> None:
    """Add commands to a parser; one of them has to be named, unless it is not `required`."""
    subparsers = parser.add_subparsers(title="commands", metavar=metavar, required=required, parser_class=_Parser)
    for entry in commands:
        text = entry.help if isinstance(entry, Group) else help_of(entry)
        subparsers.add_parser(entry.name, help=text.replace("%", "%%"), description=text).entry = entry


def chosen_command(found: argparse.Namespace) -> Command:
    """Return the command that was given, with its arguments as its fields."""
    command: type[Command] = getattr(found, _COMMAND)
    values = {field.name: getattr(found, field.name) for field in _fields(command)}
    return command(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def help_of(command: type[Command]) -> str:
    """The first paragraph of a command's docstring, without its full stop, as help texts are written."""
    paragraph = " ".join((command.__doc__ or "").partition("\n\n")[0].split()).removesuffix(".")
    return paragraph[:1].lower() + paragraph[1:]


def _add_arguments(parser: argparse.ArgumentParser, command: type[Command]) -> None:
    """Give a parser the arguments of one command."""
    hints = get_type_hints(command, include_extras=True)
    places: dict[str | None, argparse._ActionsContainer] = {None: parser}
    for field in _fields(command):
        annotation, argument = _parts(hints[field.name])
        keywords = _keywords(field, annotation, argument)
        if argument.positional:
            _add_positional(parser, field, argument, keywords)
        else:
            flags = argument.flags or ("--" + field.name.replace("_", "-"),)
            heading = argument.heading
            if heading not in places:
                places[heading] = parser.add_argument_group(heading)
            places[heading].add_argument(*flags, dest=field.name, **keywords)


def _add_positional(
    parser: argparse.ArgumentParser, field: Field[Any], argument: Argument, keywords: dict[str, Any]
) -> None:
    required = keywords.pop("required", False)
    if not required and "nargs" not in keywords:
        keywords["nargs"] = "?"
    keywords.setdefault("metavar", field.name.upper())
    if not argument.flags:
        parser.add_argument(field.name, **keywords)
        return
    # Both write to one entry of the namespace. Its default is the option's, which is added first.
    option = {**keywords, "help": f"the same as {keywords['metavar']}"}
    del option["nargs"]
    parser.add_argument(*argument.flags, dest=field.name, action=_Once, **option)
    parser.add_argument(field.name, action=_Once, **{**keywords, "default": None})


class _Once(argparse.Action):
    """Takes a value that may be given in two ways, and refuses a second one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        mark = f"_{self.dest}_given"
        if values is None:  # a positional that was not given
            return
        if hasattr(namespace, mark):
            parser.error(f"{self.metavar} is given twice")
        setattr(namespace, mark, True)
        setattr(namespace, self.dest, values)


def _fields(command: type[Command]) -> tuple[Field[Any], ...]:
    return fields(command)  # type: ignore[arg-type]  # each command is a dataclass; a base class cannot say so


def _parts(hint: Any) -> tuple[Any, Argument]:
    """The type and the Argument of an annotation."""
    if get_origin(hint) is Annotated:
        annotation, *extras = get_args(hint)
        for extra in extras:
            if isinstance(extra, Argument):
                return annotation, extra
    raise TypeError(f"{hint}: expected Annotated[TYPE, Argument(...)]")


def _keywords(field: Field[Any], annotation: Any, argument: Argument) -> dict[str, Any]:
    """The keywords of `add_argument` for a field."""
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    if annotation is bool:
        return {"help": argument.help, "action": "store_true"}
    keywords: dict[str, Any] = {"help": argument.help, **_values(annotation, argument)}
    if argument.metavar:
        keywords["metavar"] = argument.metavar
    if default is MISSING:
        return {**keywords, "required": True}
    is_told = isinstance(default, str | int | float) and default != ""
    if is_told or (isinstance(default, os.PathLike) and os.fspath(default) != "."):
        keywords["help"] += f" ({default})"
    if argument.variable is not None:
        default = os.environ.get(argument.variable, default)  # argparse converts text, as it does what is typed
    return {**keywords, "default": list(default) if isinstance(default, tuple) else default}


def _values(annotation: Any, argument: Argument) -> dict[str, Any]:
    """The keywords of `add_argument` that follow from a type."""
    kind = _without_none(annotation)
    several: dict[str, Any] = {}
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
        if argument.several == argparse.REMAINDER:
            several = {"nargs": argparse.REMAINDER}
        elif argument.several:
            several = {"nargs": argument.several, "action": "extend"}
        else:
            several = {"nargs": "*"} if argument.positional else {"action": "append"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind), **several}
    return {"type": argument.read or kind, **several}


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    (kind,) = (part for part in get_args(annotation) if part is not NoneType)
    return kind
