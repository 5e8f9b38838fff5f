"""Shards of samples: jobs that make several, so that a model is loaded once for each device, not once for each sample.

Each sample keeps stages and jobs of its own, with a spec for each file. Where several samples are due, the planner puts
jobs in front of theirs, one for each device, among which it divides the samples. Such a job leaves its files in
`ProjectPaths.untaken`. A sample's own job takes its file from there, or makes it if it is not there: because only one
sample is due, or Snakemake was told to make one that is not due, or memory was not enough after others. So files and
targets are those of single samples, a stopped or failed job of a shard loses nothing that it has finished, and a sample
that fails stops no other one.

First images are shards of their own, because previews of the training need them, and so is super resolution, which has
models of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hv15.digest import digest
from hv15.records.json_values import JsonObject
from hv15.records.outputs import LATENTS, OUTPUTS
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule
from hv15.records.shard import PARTS, ShardPart
from hv15.records.stage_names import stage_of_run
from hv15.records.twins import TWIN
from hv15.workflow.stage import Found, Stage

IMAGES: frozenset[str] = frozenset({Rule.SAMPLE_CONDITION})
"""The rules whose stages are made in shards of first images."""
_DENOISING = {LATENTS.rule_of(None), LATENTS.rule_of("step"), LATENTS.enlarging_rule}
SAMPLES: frozenset[str] = frozenset(output.rule_of(step) for output in OUTPUTS for step in (None, "step"))
"""The rules whose stages are made in shards of samples: latents, and what is decoded from them."""
ENLARGED: frozenset[str] = frozenset(output.enlarging_rule for output in OUTPUTS)
"""The same of samples that super resolution makes larger."""
SHARDS: dict[Rule, frozenset[str]] = {
    Rule.CONDITION_SHARD: IMAGES,
    Rule.SAMPLE_SHARD: SAMPLES,
    Rule.UPSAMPLE_SHARD: ENLARGED,
}
"""For each rule of shards, the rules of the stages that it makes."""
_SHOWN = 3
"""The most samples that are named."""


@dataclass(frozen=True)
class Shard:
    """Samples that one job makes."""

    stage: Stage
    parts: tuple[str, ...]
    """The names of the stages that it makes, each after those that it reads from."""
    samples: tuple[str, ...]
    """The samples' names, for a person."""

    @property
    def words(self) -> str:
        """Which samples it makes, in words."""
        names = [*self.samples[:_SHOWN]]
        if len(self.samples) > _SHOWN:
            names.append(f"{len(self.samples) - _SHOWN} more")
        return f"{', '.join(names[:-1])} and {names[-1]} are due"


def make_shards(running: Iterable[Stage], devices: int, run: str = "") -> list[Shard]:
    """Divide the samples that are due among the devices. A device that would make only one needs no shard.

    Args:
        running: the stages that have to run, each after those that it reads from.
        devices: how many jobs compute at the same time; 0 means no shards.
        run: the experiment that all of them are of; "" for the base config.
    """
    found, stages = list[Shard](), [stage for stage in running if TWIN not in stage.inputs]
    for rule, makers in SHARDS.items():
        due = _due([stage for stage in stages if stage.rule in makers])
        shares = [share for share in _divided(due, devices) if len(share) > 1]
        found += [_shard(f"{rule}.{number}", share, run) for number, share in enumerate(shares)]
    return found


@dataclass(frozen=True)
class _Sample:
    """The stages of one sample that run."""

    name: str
    stages: list[Stage]

    @property
    def work(self) -> float:
        """About how long it takes, in any unit."""
        return sum(map(_work, self.stages))


def _due(stages: Sequence[Stage]) -> list[_Sample]:
    """The samples of which something is still to be made."""
    by_sample: dict[tuple[bool, str], list[Stage]] = {}
    for stage in stages:
        by_sample.setdefault((_is_of_step(stage), stage.subject), []).append(stage)
    return [
        _Sample(_words(subject) if of_step else subject, parts)
        for (of_step, subject), parts in by_sample.items()
        if not all(stage.is_untaken for stage in parts)
    ]


def _is_of_step(stage: Stage) -> bool:
    return stage.rule.startswith("checkpoint")


def _words(subject: str) -> str:
    step, _, name = subject.partition(".")
    return f"{name} of step {step}"


def _work(stage: Stage) -> float:
    """Pixels, for each step of denoising twice with guidance; 1 for a first image."""
    if stage.rule in IMAGES:
        return 1.0
    pixels = math.prod(_number(stage.details, name) for name in ("frames", "height", "width"))
    if stage.rule not in _DENOISING:
        return pixels
    return pixels * _number(stage.details, "steps") * (2 if _number(stage.details, "guidance_scale") > 1 else 1)


def _number(details: Mapping[str, object], name: str) -> float:
    sample = details.get("sample")
    value = sample.get(name) if isinstance(sample, dict) else None
    return float(value) if isinstance(value, int | float) else 1.0


def _divided(samples: Sequence[_Sample], devices: int) -> list[list[_Sample]]:
    """Divide samples into at most so many shares of about equal work, each in the samples' order."""
    shares: list[list[int]] = [[] for _ in range(min(devices, len(samples)))]
    loads = [0.0] * len(shares)
    if shares:
        for place in sorted(range(len(samples)), key=lambda place: -samples[place].work):
            least = loads.index(min(loads))
            shares[least].append(place)
            loads[least] += samples[place].work
    return [[samples[place] for place in sorted(share)] for share in shares]


def _shard(name: str, samples: Sequence[_Sample], run: str) -> Shard:
    stages = [stage for sample in samples for stage in sample.stages]
    own = {product for stage in stages for product in stage.products}
    inputs: dict[str, dict[Path, None]] = {}
    for stage in stages:
        for key, files in stage.inputs.items():
            inputs.setdefault(key, {}).update(dict.fromkeys(file for file in files if file not in own))
    wanted: JsonObject = {stage.name: digest(stage.wanted) for stage in stages}
    product = ProjectPaths(run=run).made(name)
    made = Stage(
        stage_of_run(run, name),
        (product,),
        {PARTS: wanted},
        Found.MISSING,
        inputs={key: list(files) for key, files in inputs.items() if files},
        details={PARTS: [part.to_json() for part in _parts(stages)]},
    )
    return Shard(made, tuple(stage.name for stage in stages), tuple(sample.name for sample in samples))


def _parts(stages: Iterable[Stage]) -> Iterator[ShardPart]:
    for stage in stages:
        inputs = {key: files[0] for key, files in stage.inputs.items() if files}
        yield ShardPart(stage.name, stage.products[0], stage.wanted, stage.details, inputs)
