"""Stands in for the `hv15` command of the jobs: it makes what they declare, from their specs, without any model.

So a whole workflow takes seconds, and everything that decides about reruns is the real thing: Snakefile, rules,
planner, specs, manifests, and what products tell of themselves. Each call adds a line to `ran.log`: the command, and
for encoding how many items were new.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hv15.digest import digest

if TYPE_CHECKING:
    from hv15.project import Project
    from hv15.records.training import TrainingRecord


MEET_S = "HV15_TEST_MEET_S"
"""Environment variable: how long jobs on GPUs wait for one another."""
INSTALLED = "HV15_TEST_GPUS"
"""Environment variable: the GPUs that NVIDIA's driver is said to know."""


def main(words: list[str]) -> None:
    options = {word[2:]: words[place + 1] for place, word in enumerate(words[:-1]) if word.startswith("--")}
    command = " ".join(word for word in words[:2] if not word.startswith("--") and "/" not in word)
    done: dict[str, Callable[[list[str], dict[str, str]], str]] = {
        "demo models": copy_models,
        "encode latents": encode,
        "encode texts": encode,
        "encode masks": encode,
        "train": train,
        "stage lora": keep,
        "stage denoise": write_latents,
        "stage upsample": write_enlarged,
        "stage decode": write_video,
        "stage shard": write_shard,
        "stage sheet": write_sheet,
        "export": export,
        "stage grid": write_grid,
        "stage comparison": write_comparison,
        "stage report": write_page,
        "stage card": write_card,
        "check": lambda *_: "",
    }
    with on_a_gpu(command):
        note = done[command](words, options)
    with Path("ran.log").open("a") as log:
        log.write(f"{command} {note}".rstrip() + "\n")


@contextmanager
def on_a_gpu(command: str) -> Iterator[None]:
    """Take a GPU as the real commands do; where `gpus.log` is there, write into it which, from when to when.

    Each job waits a while for another one to be at work as well.
    """
    log = Path("gpus.log")
    if (
        not log.exists()
        or command.split()[0] not in ("encode", "train", "stage")
        or command in ("stage sheet", "stage report", "stage card")
    ):
        yield
        return
    from hv15 import gpus
    from hv15.gpus import VISIBLE, take_gpu

    if names := os.environ.get(INSTALLED):
        gpus._installed = lambda: names.split(",")
    take_gpu("auto")
    begin, here = time.monotonic(), Path(f"at-work-{os.getpid()}")
    here.touch()
    while len(list(Path().glob("at-work-*"))) < 2 and time.monotonic() < begin + float(os.environ[MEET_S]):
        time.sleep(0.01)
    yield
    here.unlink()
    with log.open("a") as file:
        file.write(f"{os.environ[VISIBLE]} {begin} {time.monotonic()} {command}\n")


def opened(options: dict[str, str]) -> Project:
    from hv15.project import Project

    overrides = json.loads(os.environ["HV15_OVERRIDES"])
    return Project(Path(os.environ["HV15_CONFIG"]), overrides, experiment=options.get("experiment", ""))


def copied(options: dict[str, str]) -> Path | None:
    """Copy what another run has made and is the same, by the real command's own code."""
    from hv15.commands.twin_copies import copy_twin

    return copy_twin(Path(options["spec"]), Path(options["out"]))


def wanted_of(options: dict[str, str]) -> dict[str, Any]:
    return json.loads(Path(options["spec"]).read_text())["wanted"]


def copy_models(words: list[str], options: dict[str, str]) -> str:
    from hv15.demo.layout import copy_base

    copy_base(Path("models"))
    return ""


def encode(words: list[str], options: dict[str, str]) -> str:
    from hv15.records.manifest import EncodedClip, Entry, item_keys

    project = opened(options)
    encoding = {"latents": project.latents, "texts": project.texts, "masks": project.masks}[words[1]]
    shard, new = int(options["shard"]), 0
    assert wanted_of(options)["needs"] == encoding.needs_digest(shard)
    manifest = encoding.new_manifest(shard)
    for key in encoding.by_shard[shard]:
        clip = EncodedClip(key.replace("-", "0")[:64], 0, 9, 64, 64)
        names = {"latents": lambda key=key: project.latents.needed[key].source.place}
        names["masks"] = lambda key=key: project.masks.needed[key].file.place
        manifest.put(key, Entry(names[encoding.kind](), (clip,)) if encoding.kind in names else Entry())
        for item in item_keys(key, manifest.entries[key]):
            path = encoding.store.path(item)
            new += not path.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    manifest.write(Path(options["out"]))
    return str(new)


def train(words: list[str], options: dict[str, str]) -> str:
    from hv15.project.products import lora_files
    from hv15.train.past import past_of
    from hv15.train.shared_folder import share_training

    project = opened(options)
    if (twin := copied(options)) is not None:
        owner = digest(past_of(project.settings.train, wanted_of(options)))
        share_training(twin.parent / "train", project.paths.training, owner)
        return "copied"
    assert wanted_of(options) == project.training_spec
    assert not Path("fail").exists(), "the test wants the training to fail"
    if Path("hang").exists():
        import time

        print("step 1", flush=True)
        Path("at-work").touch()
        time.sleep(300)
    project.latents.entries()
    project.texts.entries()
    project.masks.entries()
    if project.paths.states.exists():
        continue_training(project)
    config = json.dumps(project.settings.dump())
    told = {"hv15.made_from": json.dumps(wanted_of(options)), "hv15.config": config}
    told["hv15.steps"] = str(project.settings.train.max_train_steps)
    for file in lora_files(project.settings.train, Path(options["out"])):
        write_safetensors(file, told)
    keep_copies(project, told)
    project.dataset.record().write(project.paths.trained_dataset)
    return ""


def keep_copies(project: Project, told: dict[str, str]) -> None:
    """The copies that a training keeps on its way."""
    from hv15.train.checkpoints import CheckpointRule

    folder, train = project.paths.checkpoints, project.settings.train
    rule = CheckpointRule.from_settings(train)
    for step in range(1, (train.max_train_steps or 0) + 1):
        for name in rule.due(step, 0, 0):
            write_safetensors(folder / name, {**told, "hv15.steps": str(step)})
    for path in rule.expired(folder):
        path.unlink()


def keep(words: list[str], options: dict[str, str]) -> str:
    """The kept copy of a step, told of as the real command does."""
    from hv15.project.checkpoints import told_of_step

    project = opened(options)
    wanted = wanted_of(options)
    step = wanted["step"]
    assert wanted == project.spec_after(step)
    metadata = metadata_of(project.kept[step])
    write_safetensors(Path(options["out"]), told_of_step(metadata, wanted))
    return ""


def continue_training(project: Project) -> None:
    """Take the folder as a real training does, and leave the state after its last step."""
    from hv15.records.training import TrainingRecord
    from hv15.train.folder import claim_folder
    from hv15.train.past import past_of

    train = project.settings.train
    record = TrainingRecord(past_of(train, project.training_spec), project.settings.dump())
    claim_folder(project.paths.training, record, train.max_train_steps)
    write_state(project.paths.training, record, train.max_train_steps or 0)


def write_state(training: Path, record: TrainingRecord, step: int) -> Path:
    """A state with everything but weights."""
    folder = training / "state" / f"step-{step:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"step": step, "samples": step, "spec": record.digest, "metrics_offset": 0, "sha256": {}}
    (folder / "state.json").write_text(json.dumps({**content, "digest": digest(content)}))
    return folder


def write_latents(words: list[str], options: dict[str, str]) -> str:
    if copied(options):
        return "copied"
    spec = json.loads(Path(options["spec"]).read_text())
    wanted = spec["wanted"]
    assert not failing(spec["details"]["sample"]["name"]), "the test wants this sample to fail"
    assert ("lora" in options) == (wanted["trained"] is not None)
    write_safetensors(Path(options["out"]), {"hv15.made_from": json.dumps(wanted)})
    return ""


def write_enlarged(words: list[str], options: dict[str, str]) -> str:
    wanted = wanted_of(options)
    assert metadata_of(Path(options["low"]))["hv15.made_from"] == json.dumps(wanted["low"])
    assert ("lora" in options) == (wanted["trained"] is not None)
    write_safetensors(Path(options["out"]), {"hv15.made_from": json.dumps(wanted)})
    return ""


def write_video(words: list[str], options: dict[str, str]) -> str:
    if copied(options):
        return "copied"
    make_video(wanted_of(options), Path(options["latents"]), Path(options["out"]))
    return ""


def make_video(wanted: dict[str, Any], latents: Path, out: Path) -> None:
    import numpy as np

    from hv15.data.encode import write_video as write

    assert metadata_of(latents)["hv15.made_from"] == json.dumps(wanted["latents"])
    write(out, np.zeros((1, 16, 16, 3), np.uint8), metadata={"hv15.made_from": json.dumps(wanted)})


def write_shard(words: list[str], options: dict[str, str]) -> str:
    """The files of all samples but those that the test wants to fail; with `stop`, those of the first sample alone."""
    from hv15.records.paths import ProjectPaths
    from hv15.records.shard import parts_of
    from hv15.records.spec import Spec

    parts = parts_of(Spec.read(Path(options["spec"])))
    paths = ProjectPaths(run=options.get("experiment", ""))
    outs = {part.product: paths.before_taken(part.product) for part in parts}
    first = parts[0].details["sample"]
    for part in parts:
        if Path("stop").exists() and part.details["sample"] != first:
            sys.exit("the test wants it to be stopped")
        if failing(part.details["sample"]["name"]) or outs[part.product].exists():
            continue
        if "latents" in part.inputs:
            latents = outs.get(part.inputs["latents"], part.inputs["latents"])
            make_video(part.wanted, latents, outs[part.product])
        else:
            assert ("lora" in part.inputs) == (part.wanted.get("trained") is not None)
            assert all(file.exists() for file in part.inputs.values())
            write_safetensors(outs[part.product], {"hv15.made_from": json.dumps(part.wanted)})
    Path(options["out"]).write_text("{}")
    return str(len({part.details["sample"]["name"] for part in parts}))


def failing(sample: str) -> bool:
    return Path(f"fail-{sample}").exists()


def write_sheet(words: list[str], options: dict[str, str]) -> str:
    import numpy as np

    from hv15.data.encode import write_image

    told = {"hv15.made_from": json.dumps(wanted_of(options))}
    write_image(Path(options["out"]), np.zeros((16, 16, 3), np.uint8), told)
    return ""


def write_grid(words: list[str], options: dict[str, str]) -> str:
    import numpy as np

    from hv15.data.encode import write_video as write

    write_sheet(words, options)
    told = {"hv15.made_from": json.dumps(wanted_of(options))}
    write(Path(options["video"]), np.zeros((1, 16, 16, 3), np.uint8), metadata=told)
    return ""


def write_page(words: list[str], options: dict[str, str]) -> str:
    from hv15.pages.html import TEMPLATES, render

    Path(options["out"]).write_text(render(TEMPLATES / "base.html", {}, wanted_of(options)))
    return ""


def write_card(words: list[str], options: dict[str, str]) -> str:
    from hv15.pages.markdown import with_made_from

    Path(options["out"]).write_text(with_made_from("# A card", wanted_of(options)))
    return ""


def write_comparison(words: list[str], options: dict[str, str]) -> str:
    """The files that the spec asks for; which of them the real command draws is tested with it."""
    from hv15.records.comparison import ComparisonDetails
    from hv15.records.comparison_paths import ComparisonPaths

    details = ComparisonDetails.from_json(json.loads(Path(options["spec"]).read_text())["details"])
    paths = ComparisonPaths(Path(options["out"]).parent)
    if details.has_samples:
        write_grid(words, {**options, "out": str(paths.sheet), "video": str(paths.film)})
    for file in (paths.table, paths.groups, paths.latex):
        file.write_text("")
    told = json.dumps(wanted_of(options)).replace('"', "&quot;")
    paths.page.write_text(f'<html><head><meta name="hv15.made_from" content="{told}"></head></html>')
    return str(len(details.experiments))


def export(words: list[str], options: dict[str, str]) -> str:
    from hv15.config import load_config
    from hv15.environment import CONFIG_VARIABLE, OVERRIDES_VARIABLE
    from hv15.lora.about import About
    from hv15.records import formats

    overrides = json.loads(os.environ.get(OVERRIDES_VARIABLE, "{}"))
    config = Path(os.environ.get(CONFIG_VARIABLE, "config.yaml"))
    settings = load_config(config, overrides, experiment=options.get("experiment", ""))
    told = {"hv15.convert.to": options["to"], "hv15.convert.format": str(formats.CONVERSION)}
    about = About.from_settings(settings.convert, settings.root)
    write_safetensors(Path(options["out"]), about.metadata(metadata_of(Path(options["lora"])) | told))
    return ""


def write_safetensors(path: Path, metadata: dict[str, str]) -> None:
    header = json.dumps({"__metadata__": metadata}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def metadata_of(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])["__metadata__"]


if __name__ == "__main__":
    main(sys.argv[1:])
