"""Public docstrings say what a reader has to know: shapes of tensors, and errors that a user can cause."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1] / "hv15"
SHAPES = re.compile(r"\[[^\]\n]*\]|\((\.\.\.|[A-Za-z_]\w*)(, [^()\n]+)+\)|\b(shapes?|scalar)\b")
"""[B, N, D], (out, in), "of any shape", "the same shape"."""
ERRORS = re.compile(r"\b(User|Media|Config)Error\b|\bOutOfMemory\b")


@dataclass(frozen=True)
class Function:
    place: str
    node: ast.FunctionDef
    doc: str
    """Its own, or for what calling an object does, perhaps the class's."""


def functions(file: Path) -> Iterator[Function]:
    """The public functions of a module, and the public methods of its public classes."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    owners: list[ast.Module | ast.ClassDef] = [tree]
    owners += [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for owner in owners:
        for node in owner.body:
            if isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__call__"):
                doc = ast.get_docstring(node) or ""
                if not doc and node.name in ("forward", "__call__"):
                    doc = ast.get_docstring(owner) or ""
                yield Function(f"{file.relative_to(ROOT.parent)}:{node.lineno} {node.name}", node, doc)


@cache
def all_functions() -> list[Function]:
    return [function for file in sorted(ROOT.rglob("*.py")) for function in functions(file)]


def inherited(found: list[Function]) -> set[str]:
    """Names of methods that are documented in one class and may be implemented without words in others."""
    return {function.node.name for function in found if function.doc}


def takes_or_gives_tensors(node: ast.FunctionDef) -> bool:
    """Whether a tensor or an array of pixels is among the arguments or is the result; mappings by name do not count."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    hints = [ast.unparse(each) for each in [*(one.annotation for one in arguments), node.returns] if each is not None]
    plain = [re.sub(r"\b(dict|Mapping|Callable|Iterable|Iterator)\[.*", "", hint) for hint in hints]
    return any(re.search(r"(?<!nn\.)\b(Tensor|ScaledCodes|Pixels)\b", hint) for hint in plain)


def raises_user_errors(node: ast.FunctionDef) -> bool:
    raised = [ast.unparse(each.exc) for each in ast.walk(node) if isinstance(each, ast.Raise) and each.exc is not None]
    return any(re.match(r"(User|Media|Config)Error\(", text) for text in raised)


def test_functions_of_tensors_say_shapes() -> None:
    found = all_functions()
    words = inherited(found)
    missing = [
        function.place
        for function in found
        if takes_or_gives_tensors(function.node)
        and not SHAPES.search(function.doc)
        and (function.doc or function.node.name not in words)
    ]
    assert not missing, "\n".join(missing)


def test_functions_that_raise_user_errors_say_so() -> None:
    missing = [
        function.place
        for function in all_functions()
        if raises_user_errors(function.node) and not ERRORS.search(function.doc)
    ]
    assert not missing, "\n".join(missing)
