"""`hv15 stage shard`: several samples, with one load of each model.

What it makes waits in `ProjectPaths.untaken` for the samples' own jobs (`hv15.workflow.shards`). A sample that fails
does not stop the others: its own job says why, or tries it again alone if memory was not enough.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hv15.atomic import atomic_path, write_json
from hv15.commands.logs import log_to_stderr
from hv15.commands.options.stages import SampleShard
from hv15.commands.sample_work import (
    DecodingWork,
    ImageWork,
    LatentsWork,
    decode,
    denoise,
    encode_images,
    enlarge,
    is_made,
)
from hv15.commands.shard_failures import leave_failure
from hv15.digest import digest
from hv15.errors import UserError
from hv15.project import Project
from hv15.ranks import is_first_rank, is_rank, run_on_ranks
from hv15.records.json_values import RecordError, as_object
from hv15.records.outputs import LATENTS
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule
from hv15.records.shard import ShardPart, parts_of
from hv15.records.spec import Spec
from hv15.sample.prompts import LOW, SampleSpec

_LATENTS = (LATENTS.rule_of(None), LATENTS.rule_of("step"))

log = logging.getLogger(__name__)


def make(options: SampleShard) -> int | None:
    """Make what the planner has put into the shard; return an exit code if other processes did it.

    Raises:
        UserError: a model cannot be used.
    """
    project = Project(options.config, options.overrides, experiment=options.experiment)
    settings = project.settings
    log_to_stderr(settings.runtime.log_level)
    shard = _Shard(project, options.spec)
    if not is_rank():
        shard.copy_known()
    if shard.latents() or shard.enlarged():
        code = run_on_ranks(settings.sample.context_parallel, settings.runtime.device, settings.sample.asks_for_gpus)
        if code is not None:
            return code
    # Of several ranks all have to do the same, and an error may be that of one alone.
    failed = None if is_rank() else shard.failed
    encode_images(project, shard.images(), failed)
    denoise(project, shard.latents(), failed)
    enlarge(project, shard.enlarged(), failed)
    if is_first_rank():
        shard.copy_known()
        decode(project, shard.decodings(), failed)
        write_json(options.out, {"failed": shard.failures})
    return None


@dataclass(frozen=True)
class _Part:
    """A stage of the shard."""

    part: ShardPart
    spec: SampleSpec
    out: Path
    """Where the sample's own job will find it."""

    @property
    def content(self) -> tuple[str, str]:
        """What is equal in stages that make the same bytes."""
        return digest(self.part.wanted), self.spec.to_text()

    @property
    def is_made(self) -> bool:
        return is_made(self.out, self.spec, self.part.wanted)


class _Shard:
    """What is to be made of a shard, and what has failed."""

    def __init__(self, project: Project, spec: Path) -> None:
        self._root = project.root
        relative = ProjectPaths(run=project.paths.run)
        self._parts: list[_Part] = []
        try:
            for part in parts_of(Spec.read(spec)):
                sample = SampleSpec.from_json(as_object(part.details.get("sample")), source=str(spec))
                self._parts.append(_Part(part, sample, self._root / relative.before_taken(part.product)))
        except RecordError as error:
            hint = f"the specs of all jobs are in {relative.specs}"
            raise UserError.at(spec, f"not the spec of a shard: {error}", hint=hint) from error
        self._outs = {part.part.product: part.out for part in self._parts}
        self.failures: list[str] = []
        """The stages that failed."""

    def failed(self, out: Path, error: UserError) -> None:
        """Note that a file cannot be made; the sample's own job reads why."""
        stage = next(part.part.stage for part in self._parts if part.out == out)
        log.error("%s failed, the others go on: %s", stage, error)
        self.failures.append(stage)
        leave_failure(out, error)

    def images(self) -> list[ImageWork]:
        """The first images that are not encoded yet."""
        due = (part for part in self._of({Rule.SAMPLE_CONDITION}) if not part.is_made)
        return [ImageWork(part.spec, part.part.wanted, part.out) for part in due]

    def latents(self) -> list[LatentsWork]:
        """The samples that are not denoised yet. Of several that are the same, the first."""
        due = [part for part in self._of(_LATENTS) if not part.is_made]
        first = {part.content: part for part in reversed(due)}
        return [self._work(part) for part in due if first[part.content] is part]

    def enlarged(self) -> list[LatentsWork]:
        """The samples that super resolution has not made larger yet."""
        return [self._work(part) for part in self._of({LATENTS.enlarging_rule}) if not part.is_made]

    def decodings(self) -> list[DecodingWork]:
        """What is not decoded yet, of the samples whose latents are there."""
        works = list[DecodingWork]()
        for part in self._parts:
            latents = self._input(part, "latents")
            if latents is not None and latents.exists() and not part.is_made:
                works.append(DecodingWork(part.spec, part.part.wanted, part.out, latents))
        return works

    def copy_known(self) -> None:
        """Copy latents that are the same as some that are there: in the shard, or where the plan says so."""
        made = {part.content: part.out for part in self._of(_LATENTS) if part.is_made}
        for part in self._of(_LATENTS):
            if part.is_made:
                continue
            same = part.part.details.get("same")
            file = made.get(part.content) or (self._root / same if isinstance(same, str) else None)
            if file is not None and is_made(file, part.spec, part.part.wanted):
                with atomic_path(part.out) as copy:
                    shutil.copyfile(file, copy)
                log.info("%s is the same as %s", part.part.stage, file)

    def _work(self, part: _Part) -> LatentsWork:
        lora, condition, low = (self._input(part, name) for name in ("lora", "condition", LOW))
        return LatentsWork(part.spec, part.part.wanted, part.out, lora, condition, low=low)

    def _of(self, rules: Iterable[str]) -> list[_Part]:
        return [part for part in self._parts if part.part.rule in rules]

    def _input(self, part: _Part, name: str) -> Path | None:
        """The file of an input: what this shard makes of it, else what is in its place."""
        file = part.part.inputs.get(name)
        if file is None:
            return None
        return self._outs.get(file) or self._root / file
