"""A project folder whose config a test writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hv15.config import Settings, load_config
from hv15.errors import UserError

Load = Callable[..., Settings]
Problems = Callable[..., list[str]]

BASE = "models: {source: demo}\ndatasets: [{video_directory: clips}]\n"
"""The least that a config needs; two lines, so that a test's own text begins at line 3."""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Write config.yaml (BASE and the given text; the text alone with `base=False`) and load it."""
    monkeypatch.chdir(tmp_path)

    def load(text: str | bytes = "", *, base: bool = True, overrides: dict[str, Any] | None = None) -> Settings:
        path = Path("config.yaml")
        content = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(BASE.encode() + content if base else content)
        return load_config(path, overrides)

    return load


@pytest.fixture
def problems(load: Load) -> Problems:
    """Load a config that is wrong; return the lines of its error."""

    def problems(text: str | bytes = "", *, base: bool = True, overrides: dict[str, Any] | None = None) -> list[str]:
        with pytest.raises(UserError) as caught:
            load(text, base=base, overrides=overrides)
        return str(caught.value).splitlines()

    return problems
