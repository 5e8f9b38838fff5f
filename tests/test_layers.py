"""Imports point one way: a room of hv15 imports from its own level and from those below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEVELS = (
    {
        "errors",
        "choices",
        "grid",
        "digest",
        "atomic",
        "background",
        "collection",
        "environment",
        "output",
        "units",
        "figures",
        "file_sizes",
        "home",
        "installed",
        "lazy_names",
        "operating_system",
        "terminal_text",
        "own_files",
        "patterns",
        "remote_paths",
        "spans",
        "stamp",
        "user_folders",
        "weighted_file",
        "noise",
    },
    {
        "records",
        "pages",
        "remembered",
        "gpus",
        "machines",
        "ranks",
        "progress",
        "out_of_memory",
        "memory",
        "bitsandbytes",
        "compiler_errors",
    },
    {"config", "models", "data", "precision"},
    {"cache", "lora"},
    {"sample"},
    {"train"},
    {"project", "demo", "recipes"},
    {"plan", "comparison"},
    {"workflow", "runs", "notices", "selftest", "report"},
    {"queue"},
    {"commands", "arguments", "cli"},
)
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
BELOW_THE_WEIGHTS = {"errors", "choices", "digest", "atomic", "records", "remembered", "stamp", "bitsandbytes"}


@cache
def imports(file: Path) -> tuple[tuple[int, str], ...]:
    """The modules of this repository that a file imports, wherever in it, with their lines."""
    return tuple(_imports(file))


def _imports(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "hv15":
            yield from ((node.lineno, f"hv15.{name.name}") for name in node.names if not name.name.startswith("_"))
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module


def test_rooms_import_from_their_level_and_below() -> None:
    wrong = []
    for file in sorted((ROOT / "hv15").rglob("*.py")):
        room = file.relative_to(ROOT / "hv15").with_suffix("").parts[0]
        for line, module in imports(file):
            package, *inner = module.split(".")
            upward = package == "hv15" and inner and LEVEL[inner[0]] > LEVEL.get(room, -1) and room != "__init__"
            upward = upward and file.name != "__main__.py"  # which starts the whole program
            foreign = package in ("demo_base", "tests") or (package == "tui" and room != "commands")  # `hv15 tui`
            if upward or foreign:
                wrong.append(f"{file.relative_to(ROOT)}:{line} {module}")
    assert not wrong, "\n".join(wrong)


def test_the_weights_know_no_model_family() -> None:
    """`hv15.models.weights` reads, holds and moves weights of any network."""
    wrong = []
    for file in sorted((ROOT / "hv15" / "models" / "weights").rglob("*.py")):
        for line, module in imports(file):
            package, *inner = module.split(".")
            if package == "hv15" and inner[:2] != ["models", "weights"] and inner[0] not in BELOW_THE_WEIGHTS:
                wrong.append(f"{file.relative_to(ROOT)}:{line} {module}")
    assert not wrong, "\n".join(wrong)


def test_config_and_data_know_no_model() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line} {module}"
        for room in ("config", "data")
        for file in sorted((ROOT / "hv15" / room).rglob("*.py"))
        for line, module in imports(file)
        if module.startswith("hv15.models")
    ]
    assert not wrong, "\n".join(wrong)
