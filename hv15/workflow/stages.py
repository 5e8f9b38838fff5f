"""The stages of a project, each with what it makes, what that has to be made from, and what it reads.

A stage is right when its product records exactly what is wanted (hv15.workflow.made_from). Everything else follows from
that: what has to run (hv15.workflow.planner), and why, in words (hv15.workflow.why).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from hv15.cache.complete import CompleteEncodings
from hv15.cache.encoding import Encoding
from hv15.choices import Role
from hv15.digest import digest
from hv15.lora.about import About
from hv15.project import Project
from hv15.project.checkpoints import earlier_step, is_gone, lora_after, not_kept
from hv15.project.products import gallery_files, lora_files, products, shown_samples
from hv15.records import formats
from hv15.records.json_values import JsonObject
from hv15.records.paths import EncodedKind, ProjectPaths
from hv15.records.rules import ENCODING_RULES, Rule
from hv15.records.stage_names import stage_of_run
from hv15.train.origin import ENTRY
from hv15.workflow.made_from import MadeFromReader, conversion_spec
from hv15.workflow.model_stages import ModelStages
from hv15.workflow.recorded_stages import RecordedStages
from hv15.workflow.sample_stages import SampleStages
from hv15.workflow.stage import Found, Stage, in_project
from hv15.workflow.twins import KEPT


class StageBuilder:
    """Makes the stages of one run, each after those that it reads from. An experiment reads some of the base config's,
    or of an earlier experiment's."""

    def __init__(self, project: Project, reader: MadeFromReader, complete: CompleteEncodings) -> None:
        self._project, self._complete = project, complete
        self._paths = ProjectPaths(run=project.paths.run)
        self._root = project.root
        self._models = ModelStages(project)
        self._recorded = RecordedStages(project.root, self._paths, reader)
        self._manifest_files: dict[EncodedKind, list[Path]] = {}

    @cached_property
    def _samples(self) -> SampleStages:
        texts = self._manifests(self._project.texts)
        return SampleStages(self._project, self._recorded, self._models, texts=texts, published=self._published)

    @property
    def _trains(self) -> bool:
        """Whether there is a dataset; without one, the project only samples."""
        return bool(self._project.settings.datasets)

    def stages(self, *, of_checkpoints: bool = False, with_grid: bool = False) -> Iterator[Stage]:
        """Yield every stage, each after those that it reads from.

        Args:
            of_checkpoints: also the samples of single steps, which nothing asks for by itself.
            with_grid: the sheet of these is asked for, so the report shows it; else only if it is there.

        Raises:
            UserError: a model, a dataset, an image or a LoRA that the config names cannot be used.
        """
        for stage in self._stages(of_checkpoints, with_grid):
            yield replace(stage, name=stage_of_run(self._project.run, stage.name)) if self._project.run else stage

    def _stages(self, of_checkpoints: bool, with_grid: bool) -> Iterator[Stage]:
        yield from self._models.stages()
        if self._trains:
            yield from self._encoding("latents", self._project.latents)
        yield from self._encoding("text", self._project.texts)
        if self._masks:
            yield from self._encoding("masks", self._project.masks)
        yield from self._samples.conditions()
        if self._trains:
            yield self._training()
            step = earlier_step(self._project.settings.train, self._project.settings.train.publish_step)
            if step is not None:
                yield self._keeping(step)
        for spec in self._project.samples.values():
            yield from self._samples.sample(spec)
        for name, spec in self._project.enlarged.items():
            yield from self._samples.enlarged(self._project.samples[name], spec)
        yield from self._samples.sheet()
        if self._trains:
            for layout in self._project.settings.convert.formats:
                yield self._conversion(layout)
            yield self._publishing()
            if of_checkpoints:
                yield from self._checkpoints()
        yield self._report(with_grid)
        if self._trains:
            yield self._card()
        # A plan of memory and time holds for this machine at this moment, so it is made whenever it is asked for.
        found = Found.WRONG if (self._root / self._paths.plan).exists() else Found.MISSING
        yield Stage(Rule.PLAN, (self._paths.plan,), {}, found)

    # -- encoding ---------------------------------------------------------------------------------------------------

    def _encoding(self, kind: EncodedKind, encoding: Encoding[object]) -> Iterator[Stage]:
        roles: dict[EncodedKind, tuple[Role, ...]] = {
            "latents": ("vae", "image_encoder"),
            "text": ("text_encoder", "tokenizer", "glyph_encoder"),
        }
        if encoding.manifests_root != self._project.paths.manifests(kind):
            return  # they are another run's
        inputs: dict[str, Sequence[Path]] = {}
        if kind in roles:
            inputs = {"models": self._models.made(*roles[kind]), "checked": self._models.checked}
        for shard, state in enumerate(self._complete.shards(encoding)):
            path = in_project(encoding.manifest_path(shard), self._root)
            found = Found.MISSING
            if state.is_complete and state.recorded is not None:
                found = Found.RIGHT
            elif state.recorded not in (None, {"settings": encoding.settings, "needs": state.needs}):
                found = Found.WRONG  # else items were lost from the store, which matters when something reads them
            yield Stage(
                f"{ENCODING_RULES[kind]}.{shard}",
                (path,),
                {
                    "settings": encoding.settings,
                    "shard": f"{shard} of {encoding.shards}",
                    "needs": state.needs,
                },
                found,
                state.recorded,
                inputs,
                is_always_made=found is not Found.RIGHT and not state.is_known,
            )

    @property
    def _masks(self) -> list[Path]:
        """The manifests of masks; none if no clip has one."""
        return self._manifests(self._project.masks) if self._project.masks.needed else []

    def _manifests(self, encoding: Encoding[object]) -> list[Path]:
        if encoding.kind not in self._manifest_files:
            files = [in_project(encoding.manifest_path(shard), self._root) for shard in range(encoding.shards)]
            self._manifest_files[encoding.kind] = files
        return self._manifest_files[encoding.kind]

    # -- training ---------------------------------------------------------------------------------------------------

    def _training(self) -> Stage:
        inputs = {
            "manifests": [
                *self._manifests(self._project.latents),
                *self._manifests(self._project.texts),
                *self._masks,
            ],
            "models": self._models.made("dit"),
            "conditions": [self._paths.condition(each.name) for each in self._project.previews if each.image],
        }
        start = self._project.settings.train.continue_from
        details: JsonObject = {} if start is None else {ENTRY: start}
        kept = earlier_step(self._project.settings.train, self._project.settings.train.publish_step)
        if kept is not None:
            details[KEPT] = kept
        files = lora_files(self._project.settings.train, self._paths.trained)
        return self._recorded.stage(Rule.TRAIN, files, self._project.training_spec, inputs, details)

    def _keeping(self, step: int) -> Stage:
        """The LoRA after a step. The training has to go on only if that has not come yet.

        Raises:
            UserError: it has come, and its LoRA is not kept.
        """
        project = self._project
        train, lora = project.settings.train, self._paths.checkpoint_lora(step)
        inputs = {} if step in project.kept else {"trained": lora_files(train, self._paths.trained)}
        name, wanted = f"{Rule.KEEP_CHECKPOINT}.{step}", project.spec_after(step)
        stage = self._recorded.stage(name, lora_files(train, lora), wanted, inputs)
        if stage.found is not Found.RIGHT and is_gone(train, project.training_spec, project.paths, project.kept, step):
            raise not_kept(step, project.kept, "train.publish_step")
        return stage

    @property
    def _published(self) -> Path:
        """The LoRA that is published, sampled and converted."""
        train = self._project.settings.train
        return lora_after(train, train.publish_step, self._paths)

    # -- samples of single steps ------------------------------------------------------------------------------------

    def _checkpoints(self) -> Iterator[Stage]:
        """Samples of every step whose LoRA is kept or will be, and the sheet of those that are."""
        project = self._project
        train = project.settings.train
        chosen = earlier_step(train, train.publish_step)
        for step in sorted({*project.kept, *self._samples.promised}):
            if earlier_step(train, step) is not None and step != chosen:
                yield self._keeping(step)
            for sample in project.samples.values():
                if sample.lora_multiplier is not None:
                    yield from self._samples.sample(sample, step)
        if (grid := self._samples.checkpoint_grid()) is not None:
            yield grid

    # -- the finished LoRA ------------------------------------------------------------------------------------------

    def _conversion(self, layout: str) -> Stage:
        settings = self._project.settings
        about = About.from_settings(settings.convert, settings.root).digest()
        trained = digest(self._project.published_spec)
        wanted = conversion_spec(trained, layout, formats.CONVERSION, about)
        product = self._paths.converted(layout, settings.convert.output_name)
        return self._recorded.stage(f"{Rule.CONVERT}.{layout}", [product], wanted, {"lora": [self._published]})

    def _publishing(self) -> Stage:
        others = products(self._project.settings, self._project.samples, self._project.enlarged, self._paths)
        chosen, published = (
            lora_files(self._project.settings.train, lora) for lora in (self._published, self._paths.lora)
        )
        inputs = {"lora": chosen, "others": others}
        stage = self._recorded.stage(Rule.PUBLISH, published, self._project.published_spec, inputs)
        return replace(stage, follows=("others",))

    # -- what is told of the results --------------------------------------------------------------------------------

    def _report(self, with_grid: bool) -> Stage:
        project, paths = self._project, self._paths
        shown = [*shown_samples(project.samples, paths).values(), *shown_samples(project.enlarged, paths).values()]
        inputs: dict[str, Sequence[Path]] = {"samples": shown}
        if self._trains:
            inputs["lora"] = lora_files(project.settings.train, paths.lora)
        grid = self._shown_grid(with_grid)
        if grid is not None and with_grid:
            inputs["grid"] = grid.products
        wanted: JsonObject = {
            "format": formats.REPORT,
            "trained": project.trained_digest,
            "samples": self._samples.decoded(project.samples) | self._samples.decoded_large(),
            "about": About.from_settings(project.settings.convert, project.root).digest(),
            "grid": None if grid is None else digest(grid.wanted),
        }
        stage = self._recorded.stage(Rule.REPORT, [paths.report], wanted, inputs)
        return replace(stage, follows=(*inputs,))

    def _card(self) -> Stage:
        """The model card: it tells of the published LoRA and its copies, and shows the samples of the gallery."""
        project, paths = self._project, self._paths
        settings = project.settings
        shown = gallery_files(settings, project.samples, paths)
        copies = [paths.converted(layout, settings.convert.output_name) for layout in settings.convert.formats]
        inputs: dict[str, Sequence[Path]] = {
            "lora": lora_files(settings.train, paths.lora),
            "copies": copies,
            "samples": [*shown.values()],
        }
        wanted: JsonObject = {
            "format": formats.CARD,
            "trained": project.trained_digest,
            "copies": [*settings.convert.formats],
            "samples": self._samples.decoded({name: project.samples[name] for name in shown}),
            "about": About.from_settings(settings.convert, project.root).digest(),
        }
        return replace(self._recorded.stage(Rule.CARD, [paths.card], wanted, inputs), follows=(*inputs,))

    def _shown_grid(self, with_grid: bool) -> Stage | None:
        """The sheet of all checkpoints, if it is asked for, or there and of these samples."""
        if not self._trains or not (with_grid or (self._root / self._paths.checkpoint_sheet).exists()):
            return None
        grid = self._samples.checkpoint_grid()
        return grid if grid is not None and (with_grid or grid.found is Found.RIGHT) else None
