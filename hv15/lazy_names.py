"""Names of a package that are imported on first use (PEP 562), as its stub lists them for type checkers too."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def lazy_names(package: str, file: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return the package's `__getattr__`, `__dir__` and `__all__`.

    Args:
        file: `__init__.py` of the package; beside it is `__init__.pyi`, with lines `from .module import Name as Name`.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    module_of = {alias.name: f"{package}.{node.module}" for node in imports for alias in node.names}

    def get(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package} has no attribute {name}")
        return getattr(import_module(module_of[name]), name)

    names = sorted(module_of)
    return get, names.copy, names
