"""What people do to a project, and what the next call does then: the table of tests/workflow/test_staleness.py."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hv15.project import Project
from hv15.records.training import TrainingRecord
from hv15.train.past import past_of
from tests.workflow.quick import CLIPS, TEXTS, QuickProject
from tests.workflow.stub_hv15 import write_state

TRAIN = {"train": 1}
KEEP = {"stage lora": 1}
SAMPLE = {"stage denoise": 1, "stage decode": 1}
ONE: dict[str, object] = {"name": "one", "prompt": "a red circle"}
TWO: dict[str, object] = {"name": "two", "prompt": "a blue square"}


@dataclass(frozen=True)
class Edit:
    """What a person does to a project, and what the next call does then."""

    name: str
    edit: Callable[[QuickProject], None]
    jobs: dict[str, int] = field(default_factory=dict)
    """Without encoding jobs, which are counted by what they encode."""
    clips: int = 0
    texts: int = 0
    options: tuple[str, ...] = ()
    """Further words for Snakemake."""


def edit(name: str, action: Callable[[QuickProject], None], *jobs: dict[str, int], **counts: int) -> Edit:
    return Edit(name, action, {rule: count for part in jobs for rule, count in part.items()}, **counts)


def touch_everything(project: QuickProject) -> None:
    for path in project.root.rglob("*"):
        if path.is_file():
            os.utime(path)


def rename_clip(project: QuickProject) -> None:
    for path in list(project.clips.glob("cat.*")):
        path.rename(path.with_stem("another name, with spaces"))


def swap_captions(project: QuickProject) -> None:
    project.caption("cat", "a dog that runs")
    project.caption("dog", "a cat that runs")


def remove_clip(project: QuickProject) -> None:
    for path in list(project.clips.glob("pig.*")):
        path.unlink()


def copy_clip(project: QuickProject) -> None:
    for path in list(project.clips.glob("cat.*")):
        shutil.copy(path, path.with_stem("copy"))


def lose_store(project: QuickProject) -> None:
    shutil.rmtree(project.root / "cache" / "store")


def lose_manifests(project: QuickProject) -> None:
    shutil.rmtree(project.root / "results/manifests")


def lose_manifests_and_train(project: QuickProject) -> None:
    lose_manifests(project)
    project.set(train={"learning_rate": 0.3})


def tear_manifests_and_train(project: QuickProject) -> None:
    for path in (project.root / "results/manifests").rglob("*.json"):
        path.write_bytes(path.read_bytes()[:-20])
    project.set(train={"learning_rate": 0.3})


def old_manifests_and_train(project: QuickProject) -> None:
    for path in (project.root / "results/manifests").rglob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 1}))
    project.set(train={"learning_rate": 0.3})


def tear(name: str) -> Callable[[QuickProject], None]:
    def action(project: QuickProject) -> None:
        path = project.root / name
        path.write_bytes(path.read_bytes()[:-7])

    return action


def lose(name: str) -> Callable[[QuickProject], None]:
    return lambda project: (project.root / name).unlink()


def future(project: QuickProject) -> None:
    """The clock went back: everything was made tomorrow."""
    tomorrow = time.time() + 86_400
    for path in (project.root / "results").rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    project.set_prompts(ONE, TWO)


def another_training(project: QuickProject) -> None:
    """Somebody put a LoRA of other settings into the place of ours, with an old time."""
    for name in ("train", "lora"):
        path = project.root / f"results/{name}.safetensors"
        path.write_bytes(path.read_bytes().replace(b'learning_rate\\": 0.0001', b'learning_rate\\": 0.0002'))
        os.utime(path, (1e9, 1e9))


def train_for_real(project: QuickProject) -> None:
    """As if the last training had left a state."""
    opened = Project(project.root / "config.yaml")
    record = TrainingRecord(past_of(opened.settings.train, opened.training_spec), opened.settings.dump())
    state = write_state(opened.paths.training, record, 2)
    project.add_lora(str(state / "lora.safetensors"))
    record.write(opened.paths.training)


def train_longer(project: QuickProject) -> None:
    train_for_real(project)
    project.set(train={"max_train_steps": 4})


def go_on(project: QuickProject) -> None:
    train_for_real(project)
    project.set(train={"max_train_steps": 4, "learning_rate": 0.3, "continue_from": "latest"})


def go_on_and_lose_all_but_the_lora(project: QuickProject) -> None:
    """What the training started from stands in the LoRA, too."""
    go_on(project)
    project.make_due()
    for path in (project.root / "results").iterdir():
        if path.name.startswith("train") and path.is_dir():
            shutil.rmtree(path)
    shutil.rmtree(project.root / "results/specs")


def prompts_file(project: QuickProject, text: str) -> None:
    (project.root / "prompts.txt").write_text(text)
    project.set(sample={"prompts_file": "prompts.txt"})


def change_prompts_file(project: QuickProject) -> None:
    """Of three lines, one is edited, and the order is another."""
    prompts_file(project, "a green hexagon\na blue square\na pink line\n")
    project.make_due()
    prompts_file(project, "a blue square\na red line\n\n# and\na green hexagon\n")


def add_a_seed(project: QuickProject) -> None:
    project.set_prompts({**ONE, "seeds": [1, 2]})
    project.make_due()
    project.set_prompts({**ONE, "seeds": [3, 2, 1]})


def sets(**sections: object) -> Callable[[QuickProject], None]:
    return lambda project: project.set(**sections)


def prompts(*each: dict[str, object]) -> Callable[[QuickProject], None]:
    return lambda project: project.set_prompts(*each)


ALL_CLIPS = len(CLIPS)

EDITS = [
    edit("nothing", lambda project: None),
    edit("a new caption", lambda project: project.caption("cat", "a cat that sleeps"), TRAIN, SAMPLE, texts=1),
    edit("every file touched", touch_everything),
    edit("a clip renamed", rename_clip),
    edit("two captions swapped", swap_captions, TRAIN, SAMPLE),
    edit("a clip removed", remove_clip, TRAIN, SAMPLE),
    edit("a clip added", lambda project: project.add_clip("hen"), TRAIN, SAMPLE, clips=1, texts=1),
    edit("a clip copied", copy_clip, TRAIN, SAMPLE),
    edit("the learning rate", sets(train={"learning_rate": 0.3}), TRAIN, SAMPLE),
    edit("a greater length", train_longer, TRAIN, SAMPLE),
    edit("another learning rate from the latest state", go_on, TRAIN, SAMPLE),
    edit("all but the LoRA lost after that", go_on_and_lose_all_but_the_lora),
    edit("an earlier step published", sets(train={"publish_step": 1}), KEEP, SAMPLE),
    edit("the last step published by its number", sets(train={"publish_step": 2})),
    edit("an earlier step of another training", sets(train={"publish_step": 1, "seed": 5}), TRAIN, KEEP, SAMPLE),
    edit("a quantised base", sets(train={"quantize": "int8"}), TRAIN, SAMPLE),
    edit(
        "settings of speed and memory",
        sets(train={"blocks_to_swap": 1}, cache={"latent_batch": 2, "workers": 1}, runtime={"device": "cpu"}),
    ),
    edit("a prompt added", prompts(ONE, TWO), SAMPLE, texts=1),
    edit("a prompt edited", prompts({**ONE, "prompt": "a green square"}), SAMPLE, texts=1),
    edit("a prompt's seed", prompts({**ONE, "seed": 5}), SAMPLE),
    edit("a prompts file", lambda p: prompts_file(p, "a blue square\n"), SAMPLE, texts=1),
    edit("lines of a prompts file", change_prompts_file, SAMPLE, texts=1),
    edit("several seeds", prompts({**ONE, "seeds": [1, 2]}), {"stage shard": 1}),
    edit("a seed more", add_a_seed, SAMPLE),
    edit("a prompt's frame rate", prompts({**ONE, "fps": 12}), {"stage decode": 1}),
    edit("no prompt any more", prompts()),
    edit("a format added", sets(convert={"formats": ["comfyui"]}), {"export": 1}),
    edit("other VAE settings", sets(cache={"vae_sample_size": 128}), TRAIN, SAMPLE, clips=ALL_CLIPS),
    edit("other text settings", sets(cache={"fp8_vl": True}), TRAIN, SAMPLE, texts=TEXTS),
    edit("more shards", sets(cache={"shards": 3})),
    edit("more shards and a training", sets(cache={"shards": 3}, train={"learning_rate": 0.3}), TRAIN, SAMPLE),
    edit(
        "more shards and a prompt's seed",
        lambda p: (p.set(cache={"shards": 3}), p.set_prompts({**ONE, "seed": 5})),
        SAMPLE,
    ),
    edit(
        "lost texts' manifests and a prompt's seed",
        lambda p: (shutil.rmtree(p.root / "results/manifests/text"), p.set_prompts({**ONE, "seed": 5})),
        SAMPLE,
    ),
    edit(
        "a lost model file and a prompt's seed",
        lambda p: (lose("models/demo/dit.safetensors")(p), p.set_prompts({**ONE, "seed": 5})),
        {"demo models": 1},
        SAMPLE,
    ),
    edit(
        "all LoRAs lost", lambda p: (lose("results/train.safetensors")(p), lose("results/lora.safetensors")(p)), TRAIN
    ),
    edit("a lost store", lose_store),
    edit(
        "a lost store and a prompt added",
        lambda p: (lose_store(p), p.set_prompts(ONE, TWO)),
        SAMPLE,
        texts=TEXTS + 1,
    ),
    edit(
        "a lost store and a training",
        lambda p: (lose_store(p), p.set(train={"learning_rate": 0.3})),
        TRAIN,
        SAMPLE,
        clips=ALL_CLIPS,
        texts=TEXTS,
    ),
    edit("lost manifests", lose_manifests),
    edit("lost manifests and a training", lose_manifests_and_train, TRAIN, SAMPLE),
    edit("torn manifests and a training", tear_manifests_and_train, TRAIN, SAMPLE),
    edit("manifests of another version and a training", old_manifests_and_train, TRAIN, SAMPLE),
    edit("a torn training", tear("results/train.safetensors")),
    edit("a lost training", lose("results/train.safetensors")),
    edit("a torn LoRA", tear("results/lora.safetensors")),
    edit("a torn video", tear("results/samples/one.mp4"), {"stage decode": 1}),
    edit("a lost video", lose("results/samples/one.mp4"), {"stage decode": 1}),
    edit("torn latents", tear("results/samples/one.latents.safetensors")),
    edit(
        "torn latents and a frame rate",
        lambda p: (tear("results/samples/one.latents.safetensors")(p), prompts({**ONE, "fps": 12})(p)),
        SAMPLE,
    ),
    edit("a lost spec", lose("results/specs/train.json")),
    edit("a torn model file", tear("models/demo/byt5.safetensors"), {"demo models": 1}),
    edit("a clock that went back, and a prompt added", future, SAMPLE, texts=1),
    edit("a LoRA of other settings put in place", another_training, TRAIN),
    edit(
        "a clip added, another learning rate, another prompt",
        lambda p: (p.add_clip("hen"), p.set(train={"learning_rate": 0.3}), p.set_prompts({**ONE, "seed": 5})),
        TRAIN,
        SAMPLE,
        clips=1,
        texts=1,
    ),
    Edit(
        "on the command line",
        lambda project: None,
        TRAIN | SAMPLE,
        options=("--config", 'train={"learning_rate": 0.3}'),
    ),
]
"""The table."""
