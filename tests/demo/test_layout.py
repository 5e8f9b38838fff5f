"""The demo's models come into a project as they were packed, and whoever has them not is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.demo import layout
from hv15.errors import UserError


def test_every_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "base"
    for name in layout.DEMO_OUTPUTS:
        file = packed / Path(name).relative_to("demo")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    monkeypatch.setattr(layout, "BASE", packed)
    paths = layout.copy_base(tmp_path / "models")
    assert paths.keys() == layout.DEMO_FILES.keys()
    found = {str(path.relative_to(tmp_path / "models")) for path in (tmp_path / "models").rglob("*") if path.is_file()}
    assert found == set(layout.DEMO_OUTPUTS)
    for name in found:
        assert (tmp_path / "models" / name).read_text() == name


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "BASE", tmp_path / "base")
    with pytest.raises(UserError, match=r"dit\.safetensors"):
        layout.copy_base(tmp_path / "models")
