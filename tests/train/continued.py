"""Trainings that are continued: in a project's results, as its config says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file

from hv15.cache.batches import Stores, TrainingItem
from hv15.config import Settings
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.project.continuing import find_start, with_origin
from hv15.records.paths import ProjectPaths
from tests.train.world import metrics, run, settings, spec_of, untimed

Data = tuple[Sequence[TrainingItem], Stores]


def train(root: Path, data: Data, task: str = "t2v", **options: Any) -> Path:
    """Train in a project's results, as its config says; return the LoRA."""
    if "max_train_epochs" in options:
        options["max_train_steps"] = None
    config = settings(task, **options)
    config._root = root
    return run(root / "results", config, data=data, spec=planned(root, config))


def planned(root: Path, config: Settings) -> dict[str, Any]:
    """The spec of a training, with what it starts from."""
    spec = spec_of(config)
    origin = find_start(config, ProjectPaths(root), spec, lambda _, path: model_fingerprint(Path(path)))
    return spec if origin is None else with_origin(spec, origin)


def lines(root: Path) -> list[dict[str, Any]]:
    """All metrics but for starts and times."""
    content = (root / "results/train/metrics.jsonl").read_text().splitlines()
    return untimed([record for record in map(json.loads, content) if record["kind"] != "start"])


def starts(root: Path) -> list[int]:
    return [record["step"] for record in metrics(root / "results", "start")]


def tensors(path: Path) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in load_file(path).items()}


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def folders(root: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in (root / "results").iterdir() if path.is_dir())
