"""Fields of a dataclass as arguments of a command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest

from hv15.arguments import Argument, Command, Group, add_commands, chosen_command, help_of


@dataclass(frozen=True, kw_only=True)
class Draw(Command):
    """Draw a picture at 100 % size.

    This paragraph is for readers of the code.
    """

    name: ClassVar[str] = "draw"
    place: Annotated[Path, Argument("where", positional=True, flags=("--at",), variable="PLACE")] = Path("here")
    out: Annotated[Path, Argument("the file")]
    count: Annotated[int | None, Argument("how many (all)")] = None
    scale: Annotated[float, Argument("how large")] = 1.5
    colour: Annotated[Literal["red", "blue"] | None, Argument("of the lines")] = None
    dry_run: Annotated[bool, Argument("draw nothing")] = False
    layer: Annotated[tuple[str, ...], Argument("one of several")] = ()
    sizes: Annotated[tuple[int, ...], Argument("all at once", flags=("--sizes", "-s"), several="+")] = ()
    words: Annotated[tuple[str, ...], Argument("what follows", several=argparse.REMAINDER)] = ()

    def run(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Copy(Command):
    """Copy a file."""

    name: ClassVar[str] = "copy"
    source: Annotated[Path, Argument("from", positional=True)]
    target: Annotated[Path, Argument("to", positional=True)]

    def run(self) -> None: ...


def parse(line: str) -> Command:
    parser = argparse.ArgumentParser("program")
    add_commands(parser, (Draw, Group("file", "files", (Copy,))))
    return chosen_command(parser.parse_args(line.split()))


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("draw --out o", Draw(out=Path("o"))),
        ("draw --out o --count 3 --scale 2", Draw(out=Path("o"), count=3, scale=2.0)),
        ("draw --out o --colour blue --dry-run", Draw(out=Path("o"), colour="blue", dry_run=True)),
        ("draw --out o --layer a --layer b", Draw(out=Path("o"), layer=("a", "b"))),
        ("draw --out o -s 1 2 --sizes 3", Draw(out=Path("o"), sizes=(1, 2, 3))),
        ("draw --out o --words -n --cores 2", Draw(out=Path("o"), words=("-n", "--cores", "2"))),
        ("draw there --out o", Draw(out=Path("o"), place=Path("there"))),
        ("draw --out o there", Draw(out=Path("o"), place=Path("there"))),
        ("draw --at there --out o", Draw(out=Path("o"), place=Path("there"))),
        ("file copy a b", Copy(source=Path("a"), target=Path("b"))),
    ],
)
def test_each_field_is_an_argument_of_its_type(line: str, command: Command) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("draw", "required: --out"),
        ("draw --out o --count x", "argument --count: invalid int value"),
        ("draw --out o --colour green", "invalid choice: 'green'"),
        ("draw there --at elsewhere --out o", "PLACE is given twice"),
        ("draw --at elsewhere --out o there", "PLACE is given twice"),
        ("file copy a", "required: TARGET"),
        ("file", "required: KIND"),
        ("", "required: COMMAND"),
    ],
)
def test_a_wrong_line_is_refused(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(line)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_a_variable_gives_the_default_and_the_line_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "there")
    assert parse("draw --out o") == Draw(out=Path("o"), place=Path("there"))
    assert parse("draw here --out o") == Draw(out=Path("o"))
    assert parse("draw --at here --out o") == Draw(out=Path("o"))


def test_the_help_is_the_docstring_and_names_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert help_of(Draw) == "draw a picture at 100 % size"
    with pytest.raises(SystemExit):
        parse("draw --help")
    said = " ".join(capsys.readouterr().out.split())
    for words in ("draw a picture at 100 % size", "how large (1.5)", "where (here)", "--at PLACE the same as PLACE"):
        assert words in said
    assert "readers of the code" not in said
    assert all(field.name in said.lower().replace("-", "_") for field in fields(Draw))


def test_a_field_without_an_argument_is_a_bug() -> None:
    @dataclass(frozen=True)
    class Broken(Draw):
        extra: int = 0

    parser = argparse.ArgumentParser()
    add_commands(parser, (Broken,))
    with pytest.raises(TypeError, match="expected Annotated"):
        parser.parse_args(["draw"])
