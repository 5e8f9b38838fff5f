"""Projects of any size whose products are all there, made in seconds for bench_growth.py.

The clips are small files of their own content; a plan opens none. Everything that a project makes is written as its
jobs would: each product tells what it was made from, each manifest lists what is in the store. Whether that is true,
Snakemake itself says afterwards: nothing is to be done.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterable
from contextlib import chdir
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from hv15.cache.encoding import Encoding
from hv15.config.presets import DEMO, preset_text
from hv15.data.encode import write_image, write_video
from hv15.demo.layout import copy_base
from hv15.pages.html import TEMPLATES, render
from hv15.pages.markdown import with_made_from
from hv15.project import Project
from hv15.records.json_values import JsonObject
from hv15.records.manifest import EncodedClip, Entry, item_keys
from hv15.records.metadata import CONVERSION_ABOUT, CONVERSION_FORMAT, CONVERTED_TO, CONVERTED_TRAINING, MADE_FROM
from hv15.records.rules import ENCODING_RULES, Rule, TargetRule
from hv15.workflow import make_demo_clips, make_planner
from hv15.workflow.stage import Stage

SHARDS = 8
RATES = 10
"""Learning rates of a sweep; with more experiments, each has so many seeds."""
CLIPS = "clips"
BLACK = np.zeros((1, 16, 16, 3), np.uint8)


def write_clips(root: Path, names: Iterable[int], content: bytes = b"") -> None:
    """Write small files that stand for clips, each with content and a caption of its own.

    Args:
        content: what all of them begin with.
    """
    folder = root / CLIPS
    folder.mkdir(parents=True, exist_ok=True)
    for number in names:
        ending = struct.pack(">I4sQ", 16, b"free", number)  # a box that players pass over
        (folder / f"{number:06}.mp4").write_bytes(content + ending)
        (folder / f"{number:06}.txt").write_text(f"a clip that shows the number {number}")


def small_video() -> bytes:
    """A real video of 25 frames and 64x64 pixels."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "video.mp4"
        with av.open(str(file), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(24))
            stream.width = stream.height = 64
            for number in range(25):
                picture = np.full((64, 64, 3), 10 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode())
        return file.read_bytes()


def write_config(root: Path, experiments: int = 0, *, clips: bool = True) -> None:
    """Write the demo's config with the clips of `write_clips` beside its own, and a sweep of so many experiments."""
    text = preset_text(DEMO) + f"\ncache: {{shards: {SHARDS}}}\n"
    if clips:
        added = f"datasets:\n  - {{video_directory: {CLIPS}, resolution: [64, 64], target_frames: [9]}}\n"
        text = text.replace("datasets:\n", added, 1)
    if experiments:
        rates = min(RATES, experiments)
        grid = ", ".join(f"{1e-4 * (number + 1):g}" for number in range(rates))
        seeds = ", ".join(map(str, range(1, max(1, experiments // rates) + 1)))
        text += f"sweep:\n  grid: {{train.learning_rate: [{grid}]}}\n  seeds: [{seeds}]\n"
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.yaml").write_text(text)


def target(experiments: int) -> str:
    """What asks for all that a project makes."""
    return TargetRule.EXPERIMENTS if experiments else TargetRule.ALL


def make_everything(root: Path, experiments: int = 0) -> None:
    """Write every product that a run of the workflow would make now."""
    with chdir(root):
        project = Project(Path("config.yaml"))
        make_demo_clips(project)
        planner = make_planner(project, targets=(target(experiments),), dry_run=False)
        planner.prepare()
        for name in planner.running:
            _make(project, planner.stages[name])
        project.save_caches()


def _make(project: Project, stage: Stage) -> None:
    if stage.rule == Rule.DEMO_MODELS:
        copy_base(Path("models"))
        return
    kinds = {rule: kind for kind, rule in ENCODING_RULES.items()}
    if stage.rule in kinds:
        encodings = project.experiment(stage.run).encodings
        _encode(next(each for each in encodings if each.kind == kinds[stage.rule]), int(stage.subject))
        return
    for product in stage.products:
        product.parent.mkdir(parents=True, exist_ok=True)
        _write(product, stage.wanted)


def _encode(encoding: Encoding[object], shard: int) -> None:
    """Write a manifest, and empty files for the items in the store: a plan reads only their names."""
    manifest = encoding.new_manifest(shard)
    for key in encoding.by_shard[shard]:
        entry = Entry() if encoding.kind == "text" else Entry(key, (EncodedClip(key[:64], 0, 9, 64, 64),))
        manifest.put(key, entry)
        for item in item_keys(key, manifest.entries[key]):
            path = encoding.store.path(item)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    manifest.write(encoding.manifest_path(shard))


def _write(product: Path, wanted: JsonObject) -> None:
    """A product of its kind that tells what it was made from."""
    told = {MADE_FROM: json.dumps(wanted)}
    if product.suffix == ".safetensors":
        if "layout" in wanted:
            names = {
                CONVERTED_TO: "layout",
                CONVERSION_FORMAT: "format",
                CONVERTED_TRAINING: "trained",
                CONVERSION_ABOUT: "about",
            }
            told = {name: str(wanted[key]) for name, key in names.items()}
        header = json.dumps({"__metadata__": told}).encode()
        product.write_bytes(struct.pack("<Q", len(header)) + header)
    elif product.suffix == ".mp4":
        write_video(product, BLACK, metadata=told)
    elif product.suffix == ".png":
        write_image(product, BLACK[0], told)
    elif product.suffix == ".html":
        product.write_text(render(TEMPLATES / "base.html", {}, wanted))
    elif product.suffix == ".md":
        product.write_text(with_made_from("# A card", wanted))
    else:
        product.write_text("")
