"""The demo's models are linked or copied into a project unchanged; if they are missing, an error says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.demo import layout
from hv15.errors import UserError


def test_every_file_is_copied(tmp_path: Path) -> None:
    packed = tmp_path / "base"
    for name in layout.DEMO_OUTPUTS:
        file = packed / Path(name).relative_to("demo")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    paths = layout.copy_base(tmp_path / "models", packed)
    assert paths.keys() == layout.DEMO_FILES.keys()
    found = {str(path.relative_to(tmp_path / "models")) for path in (tmp_path / "models").rglob("*") if path.is_file()}
    assert found == set(layout.DEMO_OUTPUTS)
    for name in found:
        assert (tmp_path / "models" / name).read_text() == name


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dit\.safetensors"):
        layout.copy_base(tmp_path / "models", tmp_path / "base")
