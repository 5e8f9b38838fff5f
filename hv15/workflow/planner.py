"""What has to run, decided from what the products record, and passed to Snakemake without relying on its memory.

Snakemake decides by file times and by records in `.snakemake`, which get deleted, left behind by `cp -r`, and lost on
another machine. So the planner decides itself, in the main process, while the DAG is built:

- A stage runs when its product is wrong, or when it is missing and something that runs reads it. A list of encoded
  items is needed by commands, too: a lost one is put back empty, which is wrong.
- The inputs of a stage that does not run are all `ancient()`: whatever their times, Snakemake leaves it alone. Inputs
  that are missing and are made by this run are left out: Snakemake would run every reader of them.
- The spec of a stage that runs is written again, newer than its wrong product, with content that no record holds.
- Snakemake (9.27) ignores a job's own reasons when anything above it runs and everything in between is ancient.
  So a stage that runs names the products of the next stages above it that run as inputs, whether it reads them or not
  (hv15.workflow.job_inputs).
- No file is left with a time in the future: Snakemake refuses a result that is older than what it was made from.
- Samples that are due are made together (hv15.workflow.shards): their own jobs have the list of what was made as input.

A dry run writes its specs to a folder of its own: it may be for another config, while a run reads the usual ones. It
writes only those that give Snakemake a reason to run something.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import get_args

from hv15.atomic import atomic_path
from hv15.errors import UserError
from hv15.project.checkpoints import not_kept
from hv15.records.json_values import RecordError
from hv15.records.outputs import DECODED, LATENTS
from hv15.records.paths import EncodedKind, ProjectPaths
from hv15.records.rules import Rule, TargetRule
from hv15.records.spec import Spec
from hv15.records.stage_names import rule_of, run_of, stage_of_run, subject_of, within_run
from hv15.records.twins import TWIN
from hv15.workflow.job_inputs import JobInputs
from hv15.workflow.shards import Shard, make_shards
from hv15.workflow.stage import Found, Stage
from hv15.workflow.twins import with_twins

SECOND_NS = 10**9
_ONLY_SAMPLES = "add a dataset to config.yaml, or ask for samples"
_SHEETS = (Rule.CONTACT_SHEET, Rule.SAMPLE_GRID)
_SHOWN = (*(rule for output in DECODED for rule in (output.rule, output.enlarging_rule)), *_SHEETS)
_LATENTS = (LATENTS.rule, LATENTS.enlarging_rule)


class Planner:
    """The decisions for one call.

    Args:
        paths: of the project.
        stages: of the base config and of all experiments that were asked for, each after those that it reads from.
        targets: what was asked for: products, names of stages, `samples`, `experiments` or `all`; none, or others, mean
            the LoRA of the base config with all that belongs to it.
        dry_run: whether specs go to a folder of their own.
        devices: how many jobs with a model run at the same time; 0: unknown, so that no samples are made together.
    """

    def __init__(
        self,
        paths: ProjectPaths,
        stages: Iterable[Stage],
        *,
        targets: Collection[str] = (),
        dry_run: bool = False,
        devices: int = 0,
    ) -> None:
        self.paths = paths
        self._root = str(paths.root)
        self.stages = {stage.name: stage for stage in stages}
        self._targets, self._dry_run, self._devices = targets, dry_run, devices
        self._relative = ProjectPaths()
        self._makers = {product: stage.name for stage in self.stages.values() for product in stage.products}
        self._runs = dict.fromkeys(["", *(stage.run for stage in self.stages.values() if not stage.is_former)])
        self._restored: dict[str, str] = {}
        """For a lost LoRA that is restored from its published copy, the stage of that."""
        for run in self._runs:
            self._find_restored(stage_of_run(run, Rule.PUBLISH))
        makers = {run for name in self.requested for run in self._makers_of(name)}
        self.stages = {stage.name: stage for stage in with_twins(self.stages.values(), makers, paths.root)}

    def _makers_of(self, name: str) -> set[str]:
        """The runs that a requested stage is made of: its own, or those that are compared."""
        return {run_of(name)} if rule_of(name) != Rule.COMPARISON else {run_of(each) for each in self.above(name)}

    def _find_restored(self, name: str) -> None:
        published = self.stages.get(name)
        if published is None or published.found is not Found.RIGHT:
            return
        source = self.stages[self._makers[published.inputs["lora"][0]]]  # of which the published LoRA is a copy
        if source.found is not Found.RIGHT:
            self._restored[source.name] = name
            self.stages[source.name] = replace(source, found=Found.RIGHT, recorded=published.recorded)

    # -- deciding ---------------------------------------------------------------------------------------------------

    @cached_property
    def requested(self) -> set[str]:
        """The names of the stages whose products were asked for."""
        named = {str(product): name for product, name in self._makers.items()}
        found = {named.get(target, target) for target in self._targets}
        if TargetRule.SAMPLES in found:
            found = found - {TargetRule.SAMPLES} | self._samples("")
        if TargetRule.EXPERIMENTS in found:
            found = found - {TargetRule.EXPERIMENTS}
            found |= {name for run in self._runs if run for name in self._everything(run)}
            found |= {Rule.COMPARISON} & self.stages.keys()
        if TargetRule.ALL in found:
            found = (found - {TargetRule.ALL}) | self._everything("") | ({Rule.REPORT, Rule.CARD} & self.stages.keys())
        known = found & self.stages.keys()
        return known if known and known == found else known | self._everything("")

    def _everything(self, run: str) -> set[str]:
        """The stages that make all of a run: the LoRA and what belongs to it or, without a training, the samples."""
        publish = stage_of_run(run, Rule.PUBLISH)
        return {publish} if publish in self.stages else self._samples(run)

    def _samples(self, run: str) -> set[str]:
        """The stages that make what people look at: decoded samples, latents that are not decoded, the sheet."""
        stages = [each for each in self.stages.values() if each.run == run]
        shown = {each.name for each in stages if each.rule in _SHOWN}
        decoded = {stage for name in shown for stage in self.above(name)}
        latents = {each.name for each in stages if each.rule in _LATENTS}
        return shown | (latents - decoded)

    def refuse_unknown_targets(self) -> None:
        """Refuse an unknown target, as Snakemake does when it runs; `requested` takes it for everything.

        Raises:
            UserError: a target is neither a product, nor the name of a stage, nor `all`.
        """
        known = {*TargetRule, *self.stages, *map(str, self._makers)}
        if unknown := [target for target in self._targets if target not in known]:
            raise UserError(
                f"{', '.join(unknown)}: the config asks for nothing with that name",
                hint=f"name a file that it asks for, such as {self._relative.lora}",
            )

    @cached_property
    def running(self) -> list[str]:
        """The names of the stages that have to run, each after those that it reads from."""
        reached, running = set(self.requested), set[str]()
        needed = set(self.requested)
        for name in reversed(self.stages):
            if name not in reached:
                continue
            stage = self.stages[name]
            above = set(self.above(name))
            reached |= above
            missing = stage.found is Found.MISSING and (name in needed or stage.is_always_made)
            if self._is_wrong(stage) or missing:
                running.add(name)
                needed |= above
        return [name for name in self.stages if name in running]

    def _is_wrong(self, stage: Stage) -> bool:
        """Whether a product is wrong. The published LoRA is, too, while anything that belongs to it is not right, and
        the report while anything is not right that it shows."""
        if stage.found is Found.WRONG:
            return True
        others = [self.stages[self._makers[product]] for key in stage.follows for product in stage.inputs[key]]
        return any(other.found is not Found.RIGHT or self._is_wrong(other) for other in others)

    def above(self, name: str) -> Iterator[str]:
        """The stages whose products a stage, or the job of a shard, reads."""
        stage = self.stages.get(name) or self.shards[name].stage
        for files in stage.inputs.values():
            yield from dict.fromkeys(self._makers[file] for file in files if file in self._makers)

    # -- samples that are made together ------------------------------------------------------------------------------

    @cached_property
    def shards(self) -> dict[str, Shard]:
        """The jobs that make several samples, by name."""
        due: dict[str, list[Stage]] = {}
        for name in self.running:
            due.setdefault(run_of(name), []).append(self.stages[name])
        found = (shard for run, stages in due.items() for shard in make_shards(stages, self._devices, run))
        return {shard.stage.name: shard for shard in found}

    @cached_property
    def shard_of(self) -> dict[str, Shard]:
        """For each stage that such a job makes, the job."""
        return {name: shard for shard in self.shards.values() for name in shard.parts}

    def is_copied(self, name: str) -> bool:
        """Whether a stage copies what another run has made, or makes before."""
        return name in self.stages and TWIN in self.stages[name].inputs

    # -- what Snakemake sees ----------------------------------------------------------------------------------------

    def spec_path(self, name: str) -> Path:
        """The spec of a stage, relative to the project folder."""
        paths, stage = ProjectPaths(run=run_of(name)), within_run(name)
        return paths.trial_spec(stage) if self._dry_run else paths.spec(stage)

    def inputs(self, name: str) -> tuple[dict[str, list[str]], bool]:
        """Return the inputs of a stage by name, and whether they are to be plain (else ancient).

        Raises:
            UserError: the config asks for no such product.
        """
        if name in self.shards:
            return self._inputs.of_due(self.shards[name].stage), True
        if name not in self.stages:
            if within_run(name) in (Rule.TRAIN, Rule.PUBLISH):
                raise UserError("datasets: is missing: there is nothing to train on", hint=_ONLY_SAMPLES)
            rule, step = rule_of(name), subject_of(name)
            if rule == Rule.KEEP_CHECKPOINT or rule.startswith("checkpoint_"):
                raise self._no_checkpoint(step.partition(".")[0])
            raise UserError(f"{name}: the config asks for nothing with that name", hint="add it to config.yaml first")
        stage = self.stages[name]
        if name not in self.due:
            return self._inputs.of_idle(stage), False
        shard = self.shard_of.get(name)
        return self._inputs.of_due(stage, None if shard is None else shard.stage), True

    @cached_property
    def _inputs(self) -> JobInputs:
        return JobInputs(self.stages, self.due, self._makers, self._spec_input, self.exists)

    def _spec_input(self, name: str) -> Path:
        """The spec of a stage as an input. A dry run writes only those whose time is the reason to run."""
        return self.spec_path(name) if not self._dry_run or self._is_replaced(name) else ProjectPaths().no_spec

    def _no_checkpoint(self, step: str) -> UserError:
        """The error for a step whose LoRA is not kept; with "", for the sheet of all if nothing is on it."""
        if step:
            of_steps = [stage for stage in self.stages.values() if stage.rule == Rule.CHECKPOINT_LATENTS]
            return not_kept(int(step), sorted({int(stage.subject.partition(".")[0]) for stage in of_steps}))
        return UserError(
            "no LoRA of a step is kept, or no prompt gives a video or images",
            hint="set train.save_every_n_steps before a training, and sample.prompts",
        )

    @property
    def _unread(self) -> list[Path]:
        """Missing products that are always made, where no stage that runs reads them: Snakemake would make none."""
        read = self.requested.union(*(self.above(name) for name in self.running))
        alone = [self.stages[name] for name in self.running if name not in read]
        return [product for stage in alone if stage.is_always_made for product in stage.products]

    @cached_property
    def due(self) -> frozenset[str]:
        """The names of `running`."""
        return frozenset(self.running)

    def prepare(self) -> None:
        """Write the specs and set the times, so that Snakemake comes to the same decisions.

        Raises:
            UserError: the disk is full, or a folder cannot be written.
        """
        self._restore_lora()
        if not self._dry_run:
            for run in self._runs:
                self._forget_former_stages(run)
                self._forget_untaken(run)
        else:
            Spec({}).write(self.paths.root / ProjectPaths().no_spec)
        for product in self._unread:
            if not self.exists(product):
                with atomic_path(self.paths.root / product):
                    pass  # empty
        for stage in (*self.stages.values(), *(shard.stage for shard in self.shards.values())):
            if stage.is_former:
                continue
            self._write_spec(stage)
            self._avoid_future_times(stage)

    def _restore_lora(self) -> None:
        """If the trained LoRA is lost, restore it from its published copy instead of training again."""
        for source, copy_of_it in self._restored.items():
            lost, published = (self.stages[name].products for name in (source, copy_of_it))
            for product, copy in zip(lost, published, strict=True):
                with contextlib.suppress(OSError, UserError), atomic_path(self.paths.root / product) as part:
                    shutil.copyfile(self.paths.root / copy, part)

    def _forget_former_stages(self, run: str) -> None:
        """Remove the specs of stages that the config no longer asks for."""
        for path in ProjectPaths(self.paths.root, run).specs.glob("*.json"):
            name = stage_of_run(run, path.stem)
            if name not in self.stages and name not in self.shards:
                path.unlink(missing_ok=True)

    def _forget_untaken(self, run: str) -> None:
        """Remove what jobs of shards have left and no stage wants: the jobs of the samples take what they find."""
        paths = ProjectPaths(self.paths.root, run)
        folder = paths.untaken
        if folder.is_symlink() or not folder.exists():
            return
        stages = [stage for stage in self.stages.values() if stage.run == run]
        wanted = {
            self.paths.root / ProjectPaths(run=run).before_taken(product)
            for stage in stages
            if stage.is_untaken
            for product in stage.products
        }
        left = [*folder.glob("*.json"), *folder.glob(f"{paths.samples.name}/*")]
        if any(stage.rule == Rule.CHECKPOINT_LATENTS for stage in stages):  # else nothing is known of them
            left += folder.glob(f"{paths.all_checkpoints.name}/*/*")
        for path in left:
            if path not in wanted:
                _remove(path)

    def _is_replaced(self, name: str) -> bool:
        """Whether a job makes a product that is there anew."""
        stage = self.stages[name] if name in self.stages else self.shards[name].stage
        is_made = name in self.due or name in self.shards
        return is_made and any(self.exists(product) for product in stage.products)

    def exists(self, product: Path) -> bool:
        """Whether a product is there."""
        return os.path.exists(self._at(product))  # noqa: PTH110 (thousands of times, as below)

    def _at(self, product: Path) -> str:
        """Where a product is, as text: a plan of 100 experiments asks for some ten thousand."""
        return os.path.join(self._root, product)  # noqa: PTH118

    def _write_spec(self, stage: Stage) -> None:
        replaces = self._is_replaced(stage.name)
        if self._dry_run and not replaces:
            return
        path = self.paths.root / self.spec_path(stage.name)
        runs = stage.name in self.due or stage.name in self.shards
        spec = Spec(stage.wanted, stage.details, runs, time.time_ns() if replaces else 0)
        if replaces:
            spec.write(path)
            written = path.stat().st_mtime_ns
            for product in stage.products:
                _make_older(self._at(product), written)
            return
        try:
            known = Spec.load(path)
        except RecordError:
            known = None
        if known is None or (known.wanted, known.details, known.runs) != (spec.wanted, spec.details, spec.runs):
            spec.write(path)

    def _avoid_future_times(self, stage: Stage) -> None:
        for file in (*stage.products, self.spec_path(stage.name)):
            _make_older(self._at(file), time.time_ns() + SECOND_NS)


def refuse_folders(paths: ProjectPaths) -> None:
    """Refuse a folder in the place of a spec or a manifest of a run, which no job could write.

    Raises:
        UserError: there is one.
    """
    places = [paths.specs, paths.trial_spec("").parent]
    for kind in get_args(EncodedKind):
        places += paths.manifests(kind).glob("*")
    for file in chain.from_iterable(place.glob("*.json") for place in places):
        if file.is_dir():
            raise UserError.at(
                file,
                "a folder, expected a file that hv15 writes itself",
                hint="move the folder elsewhere, then run the same command again",
            )


def _make_older(product: str, moment: int) -> None:
    """Give a file or folder a time before a moment (nanoseconds since 1970), if it has a later one."""
    for path in (product, f"{product}/.snakemake_timestamp"):  # Snakemake's time of a folder
        try:
            seen = os.lstat(path)
        except OSError:  # not there
            return
        if seen.st_mtime_ns >= moment:
            with contextlib.suppress(OSError):  # not ours
                os.utime(path, ns=(moment - SECOND_NS, moment - SECOND_NS), follow_symlinks=False)
        if stat.S_ISREG(seen.st_mode):
            return


def _remove(path: Path) -> None:
    """Remove a file or a folder; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()
