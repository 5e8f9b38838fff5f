"""Words on a command line: which are targets of the project in this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.commands.targets import asked


@pytest.mark.parametrize(
    "word", ["train", "experiments", "all", "results/lora.safetensors", "results/small/lora.safetensors"]
)
def test_a_rule_or_a_result_is_a_target(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("")
    assert asked(Path(word), ("samples",), ()) == (Path(), (word, "samples"))


@pytest.mark.parametrize("word", ["nowhere", "/nowhere/at/all", "../nowhere", "other.yaml"])
def test_any_other_word_is_a_project_so_a_mistyped_one_starts_no_run_here(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("")
    assert asked(Path(word), ("samples",), ()) == (Path(word), ("samples",))


def test_without_a_project_here_a_word_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert asked(Path("train"), (), ()) == (Path("train"), ())
