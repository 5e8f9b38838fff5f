"""The tables of the Samples screen: which sample is in which cell."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hv15.data.encode import write_video
from tests.data.videos import numbered
from tui.data.lora_names import NO_LORA, THIS_LORA, loras_of_project, name_of_lora
from tui.data.sample_matrix import SampleMatrix, by_lora, by_step
from tui.data.samples import SamplesReader

CONFIG = """\
task: t2v
models: {source: demo}
datasets: [{video_directory: clips, resolution: [64, 64], target_frames: [9]}]
sample:
  with_base: true
  video_size: [64, 64]
  video_length: 9
  prompts:
    - {name: dog, prompt: a dog}
    - {name: cat, prompt: a cat}
"""


def sampled(root: Path, name: str, prompt: str = "a cat", time: float = 1e9, **more: Any) -> Path:
    """A video that tells what it was made from."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = {"prompt": prompt, "negative_prompt": "", "seed": 7, "lora_multiplier": 1.0, **more}
    write_video(path, numbered(0)[None], metadata={"hv15.sample": json.dumps(asked)})
    os.utime(path, (time, time))
    return path


def project(root: Path) -> Path:
    (root / "config.yaml").write_text(CONFIG)
    sampled(root, "results/samples/cat.mp4")
    sampled(root, "results/samples/cat.base.mp4", lora_multiplier=None)
    for step in (200, 1000):
        sampled(root, f"results/train/previews/cat.step{step:06}.mp4")
    sampled(root, "results/checkpoints/200/cat.mp4", time=2e9)
    sampled(root, "results/rank-8/samples/cat.mp4", lora_multiplier=0.5)
    sampled(root, "results/samples/bird.mp4", "a bird")
    return root


def tables(root: Path) -> tuple[SampleMatrix, SampleMatrix]:
    reader = SamplesReader(root / "config.yaml")
    reader.refresh()
    return (
        by_step(reader.samples, reader.asked),
        by_lora(reader.samples, reader.asked, root, trains=reader.trains),
    )


def written(table: SampleMatrix) -> dict[tuple[str, str], list[str]]:
    """The kinds in each cell, by the titles of its row and its column."""
    return {
        (table.rows[row], table.columns[column]): [each.kind for each in samples]
        for (row, column), samples in table.cells.items()
    }


def test_prompts_and_steps(tmp_path: Path) -> None:
    steps, _ = tables(project(tmp_path))
    assert steps.rows == ("dog", "cat", "bird", "cat · rank-8"), "as in the config, then the others"
    assert steps.columns == (NO_LORA, "step 200", "step 1,000", "final")
    assert written(steps) == {
        ("cat", NO_LORA): ["base"],
        ("cat", "step 200"): ["checkpoint", "preview"],
        ("cat", "step 1,000"): ["preview"],
        ("cat", "final"): ["final"],
        ("bird", "final"): ["final"],
        ("cat · rank-8", "final"): ["final"],
    }
    asked = {(steps.rows[row], steps.columns[column]): name for (row, column), name in steps.asked.items()}
    assert asked == {
        ("dog", NO_LORA): "dog.base",
        ("dog", "final"): "dog",
        ("cat", NO_LORA): "cat.base",
        ("cat", "final"): "cat",
    }
    assert steps.place_of(tmp_path / "results/train/previews/cat.step000200.mp4") == ((1, 1), 1)
    assert steps.place_of(tmp_path / "nowhere.mp4") is None


def test_prompts_and_loras(tmp_path: Path) -> None:
    project(tmp_path)
    own, style = str(tmp_path / "results/lora.safetensors"), "/loras/style.safetensors"
    again = [{"path": own, "fingerprint": "f", "multiplier": 0.8}, {"path": style, "fingerprint": "f", "multiplier": 1}]
    folder = "results/again"
    sampled(tmp_path, f"{folder}/a-cat-seed9-0123abcd.mp4", time=3e9, seed=9, lora_multiplier=None, loras=again)
    sampled(tmp_path, f"{folder}/a-cat-seed8-0123abcd.mp4", time=2e9, seed=8, lora_multiplier=None, loras=again[:1])
    sampled(tmp_path, f"{folder}/a-cow-seed8-0123abcd.mp4", "a cow", lora_multiplier=None)
    _, loras = tables(tmp_path)
    assert loras.rows == ("dog", "cat", "a-cow", "bird")
    assert loras.columns == (NO_LORA, THIS_LORA, "this LoRA at 0.8", "this LoRA at 0.8 + style", "rank-8 at 0.5")
    assert written(loras) == {
        ("cat", NO_LORA): ["base"],
        ("cat", THIS_LORA): ["final"],
        ("cat", "rank-8 at 0.5"): ["final"],
        ("cat", "this LoRA at 0.8"): ["again"],
        ("cat", "this LoRA at 0.8 + style"): ["again"],
        ("bird", THIS_LORA): ["final"],
        ("a-cow", NO_LORA): ["again"],
    }


def test_without_samples_the_config_gives_the_rows(tmp_path: Path) -> None:
    assert tables(tmp_path) == (SampleMatrix(), SampleMatrix())
    (tmp_path / "config.yaml").write_text(CONFIG)
    steps, loras = tables(tmp_path)
    assert (steps.rows, steps.columns) == (("dog", "cat"), (NO_LORA, "final"))
    assert (loras.rows, loras.columns) == (("dog", "cat"), (NO_LORA, THIS_LORA))
    assert len(steps.asked) == len(loras.asked) == 4


def test_strengths_of_a_project_that_trains_nothing(tmp_path: Path) -> None:
    """Its own LoRA has no column, and the sheet of all is no sample."""
    config = CONFIG.replace("datasets: [{video_directory: clips, resolution: [64, 64], target_frames: [9]}]\n", "")
    columns = "  strengths: [0, 0.5, 1, 2]\n  loras: [{path: a.safetensors}]\n  with_base: true\n"
    (tmp_path / "config.yaml").write_text(config.replace("  with_base: true\n", columns))
    _, empty = tables(tmp_path)
    assert (empty.rows, empty.columns, set(empty.asked.values())) == (("dog", "cat"), ("final",), {"dog", "cat"})
    for strength in (0, 0.5, 1, 2):
        loras = [{"path": "a.safetensors", "multiplier": strength}] if strength else []
        name = f"results/samples/cat.x{strength:g}.mp4"
        sampled(tmp_path, name, lora_multiplier=None, loras=loras)
    write_video(tmp_path / "results/samples/grid.mp4", numbered(0)[None])
    steps, loras = tables(tmp_path)
    assert loras.columns == (NO_LORA, "a at 0.5", "a", "a at 2")
    assert {row for row, _ in written(loras)} == {"cat"}
    assert loras.rows == steps.rows == ("dog", "cat")
    assert len(written(loras)) == 4


def test_what_loras_are_called(tmp_path: Path) -> None:
    names = {
        "results/lora.safetensors": "this LoRA",
        "results/train.safetensors": "this LoRA",
        "results/lora.ema.safetensors": "this LoRA, averaged",
        "results/checkpoints/1000/lora.safetensors": "step 1,000",
        "results/train/checkpoints/lora-step000200.safetensors": "step 200",
        "results/train/checkpoints/lora-step000200.ema.safetensors": "step 200, averaged",
        "results/rank-8/train.safetensors": "rank-8",
        "loras/style.v2.safetensors": "style.v2",
        "/elsewhere/results/lora.safetensors": "lora",
    }
    assert {name: name_of_lora(Path(name), tmp_path) for name in names} == names
    assert name_of_lora(tmp_path / "results/lora.safetensors", tmp_path) == "this LoRA"
    found = [name for name in names if not name.startswith(("/", "loras"))]
    for name in [*found, "results/rank-8/train/metrics.jsonl"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    loras = loras_of_project(tmp_path)
    assert [each.name for each in loras] == [
        NO_LORA,
        "this LoRA",
        "this LoRA, averaged",
        "step 1,000",
        "step 200, averaged",
        "step 200",
        "rank-8",
    ]
    assert loras[0].path is None
    assert loras[1].path == Path("results/lora.safetensors")


def test_super_resolution_is_the_last_column(tmp_path: Path) -> None:
    """Also while it is still to be made; it is in no column of LoRAs, of which it has its own."""
    root = project(tmp_path)
    (root / "config.yaml").write_text(
        CONFIG.replace("{source: demo}", "{source: hub, variant: 480p_t2v}") + "  sr: auto\n"
    )
    sampled(root, "results/samples/cat.sr.mp4", lora_multiplier=None)
    reader = SamplesReader(root / "config.yaml")
    reader.refresh()
    table = by_step(reader.samples, reader.asked, reader.enlarged)
    assert table.columns[-2:] == ("final", "super resolution")
    assert written(table)["cat", "super resolution"] == ["enlarged"]
    asked = {(table.rows[row], table.columns[column]) for row, column in table.asked}
    assert {("dog", "super resolution"), ("cat", "super resolution")} <= asked
    loras = by_lora(reader.samples, reader.asked, root)
    assert "enlarged" not in {kind for kinds in written(loras).values() for kind in kinds}
