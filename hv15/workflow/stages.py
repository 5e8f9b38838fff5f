"""The stages of a project: each job, with what it makes, what that has to be made from, and what it reads.

A stage is right when its product records exactly what is wanted (hv15.workflow.made_from). Everything else follows from
that: what has to run (hv15.workflow.planner), and why, in words (hv15.workflow.why).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from hv15.cache.complete import CompleteEncodings
from hv15.cache.encoding import Encoding
from hv15.choices import ENLARGING_ROLES, Role, roles_of
from hv15.demo.layout import DEMO_VERSION, demo_is_copied
from hv15.digest import digest
from hv15.lora.about import About
from hv15.project import Project
from hv15.project.checkpoints import earlier_step, is_gone, lora_after, not_kept, promised_steps, will_be_kept
from hv15.project.grids import GridRow, grid_rows
from hv15.project.products import lora_files, products, sheet_samples
from hv15.records import formats
from hv15.records.fields import to_json
from hv15.records.json_values import JsonObject, RecordError
from hv15.records.outputs import LATENTS, decoded_outputs, subject
from hv15.records.paths import EncodedKind, ProjectPaths
from hv15.records.rules import ENCODING_RULES, Rule
from hv15.records.spec import Spec
from hv15.sample.plan import BASE_SUFFIX
from hv15.sample.prompts import SampleSpec
from hv15.train.origin import ENTRY
from hv15.workflow.made_from import MadeFromReader, conversion_spec


class Found(Enum):
    """The state in which a stage's product was found."""

    RIGHT = "right"
    MISSING = "missing"
    """Not there, or unreadable: torn, or of another version. It is made again when something needs it."""
    WRONG = "wrong"
    """There, but made from something else."""


@dataclass(frozen=True)
class Stage:
    """One job of the workflow."""

    name: str
    """Rule and wildcard: `train`, `sample_video.NAME`. Its spec and its log have the same name."""
    products: tuple[Path, ...]
    """Relative to the project folder, as Snakemake names them."""
    wanted: JsonObject
    """What the products have to be made from."""
    found: Found
    recorded: JsonObject | None = None
    """What the product was made from, as it records itself."""
    inputs: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """Products of other stages that it reads, by the name that the rule knows them by."""
    details: JsonObject = field(default_factory=dict)
    """What else the job has to know."""
    is_always_made: bool = False
    """Whether a missing product is made even if no stage that runs reads it."""
    is_untaken: bool = False
    """Whether the job of a shard has made the product, and the stage's own job has not taken it yet."""

    @property
    def rule(self) -> str:
        return self.name.partition(".")[0]

    @property
    def subject(self) -> str:
        """The wildcard: a sample's name, a shard, a layout."""
        return self.name.partition(".")[2]


class StageBuilder:
    """Makes the stages of one project, each after those that it reads from."""

    def __init__(self, project: Project, reader: MadeFromReader, complete: CompleteEncodings) -> None:
        self._project, self._reader, self._complete = project, reader, complete
        self._paths = ProjectPaths(run=project.paths.run)
        self._root = project.root

    @property
    def _trains(self) -> bool:
        """Whether there is a dataset; without one, the project only samples."""
        return bool(self._project.settings.datasets)

    def stages(self, *, of_checkpoints: bool = False) -> Iterator[Stage]:
        """Yield every stage, each after those that it reads from.

        Args:
            of_checkpoints: also the samples of single steps, which nothing asks for by itself.

        Raises:
            UserError: a model, a dataset, an image or a LoRA that the config names cannot be used.
        """
        yield from self._models()
        if self._trains:
            yield from self._encoding("latents", self._project.latents)
        yield from self._encoding("text", self._project.texts)
        if self._masks:
            yield from self._encoding("masks", self._project.masks)
        yield from self._conditions()
        if self._trains:
            yield self._training()
            step = earlier_step(self._project.settings.train, self._project.settings.train.publish_step)
            if step is not None:
                yield self._keeping(step)
        for spec in self._project.samples.values():
            yield from self._sample(spec)
        yield from self._sheet()
        if self._trains:
            for layout in self._project.settings.convert.formats:
                yield self._conversion(layout)
            yield self._publishing()
            if of_checkpoints:
                yield from self._checkpoints()
        # A plan of memory and time holds for this machine at this moment, so it is made whenever it is asked for.
        found = Found.WRONG if (self._root / self._paths.plan).exists() else Found.MISSING
        yield Stage(Rule.PLAN, (self._paths.plan,), {}, found)

    # -- models -----------------------------------------------------------------------------------------------------

    def _models(self) -> Iterator[Stage]:
        models, settings = self._project.models, self._project.settings
        if settings.models.source == "demo":
            files = tuple(path for role in (*roles_of("i2v"), *ENLARGING_ROLES) for path in self._made(role))
            directory = settings.resolve(settings.models.directory)
            there = all((self._root / file).exists() for file in files)
            found = Found.RIGHT if demo_is_copied(directory) else Found.WRONG if there else Found.MISSING
            yield Stage(Rule.DEMO_MODELS, files, {"version": DEMO_VERSION}, found)
            return
        if settings.models.source == "hub":
            for role in roles_of(settings.task):
                yield self._download(role)
        identities: JsonObject = {role: models.identity(role) for role in roles_of(settings.task)}
        inputs = {"models": [path for role in roles_of(settings.task) for path in self._made(role)]}
        yield self._checking_stage(Rule.CHECK_MODELS, self._paths.checked_models, {"models": identities}, inputs)

    def _download(self, role: Role) -> Stage:
        files = self._made(role)
        wanted: JsonObject = {"identity": self._project.models.identity(role)}
        identity = self._project.models.downloaded(role)
        recorded: JsonObject | None = None if identity is None else {"identity": identity}
        return Stage(f"download_{role}", files, wanted, self._compare(files, recorded, wanted), recorded)

    def _made(self, *roles: Role) -> tuple[Path, ...]:
        """The model files that the workflow itself makes or downloads; files that a person gave need no job."""
        made = [path for role in roles for path in self._project.models.made(role)]
        return tuple(_relative(path, self._root) for path in made)

    def _checked(self) -> list[Path]:
        return [] if self._project.settings.models.source == "demo" else [self._paths.checked_models]

    # -- encoding ---------------------------------------------------------------------------------------------------

    def _encoding(self, kind: EncodedKind, encoding: Encoding[object]) -> Iterator[Stage]:
        roles: dict[EncodedKind, tuple[Role, ...]] = {
            "latents": ("vae", "image_encoder"),
            "text": ("text_encoder", "tokenizer", "glyph_encoder"),
        }
        inputs: dict[str, Sequence[Path]] = {}
        if kind in roles:
            inputs = {"models": self._made(*roles[kind]), "checked": self._checked()}
        for shard, state in enumerate(self._complete.shards(encoding)):
            path = _relative(encoding.manifest_path(shard), self._root)
            found = Found.MISSING
            if state.recorded is not None:
                found = Found.RIGHT if state.is_complete else Found.WRONG
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
        return [_relative(encoding.manifest_path(shard), self._root) for shard in range(encoding.shards)]

    # -- training ---------------------------------------------------------------------------------------------------

    def _training(self) -> Stage:
        inputs = {
            "manifests": [
                *self._manifests(self._project.latents),
                *self._manifests(self._project.texts),
                *self._masks,
            ],
            "models": self._made("dit"),
            "conditions": [self._paths.condition(each.name) for each in self._project.previews if each.image],
        }
        start = self._project.settings.train.continue_from
        details: JsonObject = {} if start is None else {ENTRY: start}
        files = lora_files(self._project.settings.train, self._paths.trained)
        return self._recording_stage(Rule.TRAIN, files, self._project.training_spec, inputs, details)

    def _keeping(self, step: int) -> Stage:
        """The LoRA after a step. The training has to go on only if that has not come yet.

        Raises:
            UserError: it has come, and its LoRA is not kept.
        """
        project = self._project
        train, lora = project.settings.train, self._paths.checkpoint_lora(step)
        inputs = {} if step in project.kept else {"trained": lora_files(train, self._paths.trained)}
        name, wanted = f"{Rule.KEEP_CHECKPOINT}.{step}", project.spec_after(step)
        stage = self._recording_stage(name, lora_files(train, lora), wanted, inputs)
        if stage.found is not Found.RIGHT and is_gone(train, project.training_spec, self._paths, project.kept, step):
            raise not_kept(step, project.kept, "train.publish_step")
        return stage

    @property
    def _published(self) -> Path:
        """The LoRA that is published, sampled and converted."""
        train = self._project.settings.train
        return lora_after(train, train.publish_step, self._paths)

    # -- samples ----------------------------------------------------------------------------------------------------

    @property
    def _text(self) -> str:
        """The digest that stands for the encoding of the prompts."""
        return self._project.texts.settings_digest

    def _conditions(self) -> Iterator[Stage]:
        """The first images of samples and previews."""
        models = {"models": self._made("vae", "image_encoder"), "checked": self._checked()}
        specs = [*self._project.samples.values(), *self._project.previews]
        for name, spec in {spec.name: spec for spec in reversed(specs) if spec.image}.items():
            product, details = self._paths.condition(name), JsonObject({"sample": spec.to_json()})
            stage = f"{Rule.SAMPLE_CONDITION}.{name}"
            yield self._sample_stage(stage, product, spec.conditioning(), models, details)

    def _sample(self, spec: SampleSpec, step: int | None = None) -> Iterator[Stage]:
        """A sample with the published LoRA, or with that after a step."""
        name, train = spec.name, self._project.settings.train
        details: JsonObject = {"sample": spec.to_json()}
        lora = list[Path]()
        trained = self._project.trained_digest if step is None else digest(self._project.spec_after(step))
        if spec.lora_multiplier is not None:
            lora = [self._published if step is None else lora_after(train, step, self._paths)]
            if same := self._same(name, step):
                details["same"] = str(same)
        condition = [self._paths.condition(name)] if spec.image else []
        latents, where = LATENTS.path(self._paths, name, step), subject(name, step)
        yield self._sample_stage(
            f"{LATENTS.rule_of(step)}.{where}",
            latents,
            spec.denoising(trained, self._text),
            {
                "lora": lora,
                "condition": condition,
                "manifests": self._manifests(self._project.texts),
                "models": self._made("dit"),
            },
            details,
        )
        for output in decoded_outputs(spec.output_type):
            product = output.path(self._paths, name, step)
            inputs = {"latents": [latents], "models": self._made("vae")}
            wanted = spec.decoding(trained, self._text)
            stage = self._sample_stage(f"{output.rule_of(step)}.{where}", product, wanted, inputs, details)
            whole = not output.is_folder or len(list((self._root / product).glob("*.png"))) == spec.frames
            yield stage if whole else replace(stage, found=Found.MISSING)

    def _same(self, name: str, step: int | None) -> Path | None:
        """The latents that may be the same, and are copied then: those of the published LoRA, those of its step."""
        if step is not None:
            return LATENTS.path(self._paths, name)
        train = self._project.settings.train
        published = train.publish_step or train.max_train_steps
        return None if published is None else LATENTS.path(self._paths, name, published)

    def _checkpoints(self) -> Iterator[Stage]:
        """Samples of every step whose LoRA is kept or will be, and the sheet of those that are."""
        project = self._project
        train, spec, paths = project.settings.train, project.training_spec, project.paths
        promised = [step for step in promised_steps(train) if will_be_kept(train, spec, paths, step)]
        chosen = earlier_step(train, train.publish_step)
        for step in sorted({*project.kept, *promised}):
            if earlier_step(train, step) is not None and step != chosen:
                yield self._keeping(step)
            for sample in project.samples.values():
                if sample.lora_multiplier is not None:
                    yield from self._sample(sample, step)
        rows = grid_rows(project.samples, self._paths, [*project.kept] or promised)
        if rows:
            files = [cell.file for row in rows for cell in row.cells]
            made_from: JsonObject = {row.name: self._cells(row) for row in rows}
            drawn = [self._paths.checkpoint_sheet, self._paths.checkpoint_film]
            wanted: JsonObject = {"format": formats.GRID, "samples": made_from}
            details: JsonObject = {"rows": [to_json(row) for row in rows]}
            yield self._recording_stage(Rule.CHECKPOINT_GRID, drawn, wanted, {"samples": files}, details)

    def _cells(self, row: GridRow) -> JsonObject:
        """What the cells of a row are made from, by step; "" for the sample without the LoRA."""
        found: JsonObject = {}
        for cell in row.cells:
            spec = self._project.samples[row.name if cell.step is not None else row.name + BASE_SUFFIX]
            trained = None if cell.step is None else digest(self._project.spec_after(cell.step))
            found[str(cell.step or "")] = digest(spec.decoding(trained, self._text))
        return found

    def _sheet(self) -> Iterator[Stage]:
        compared = sheet_samples(self._project.samples, self._paths)
        if not compared:
            return
        names = [file for pair in compared.values() for file in pair if file is not None]
        trained = self._project.trained_digest
        samples: JsonObject = {
            name: digest(spec.decoding(trained, self._text)) for name, spec in self._project.samples.items()
        }
        product = self._paths.contact_sheet
        yield self._recording_stage(Rule.CONTACT_SHEET, [product], {"samples": samples}, {"samples": names})

    # -- the finished LoRA ------------------------------------------------------------------------------------------

    def _conversion(self, layout: str) -> Stage:
        settings = self._project.settings
        about = About.from_settings(settings.convert, settings.root).digest()
        trained = digest(self._project.published_spec)
        wanted = conversion_spec(trained, layout, formats.CONVERSION, about)
        product = self._paths.converted(layout, settings.convert.output_name)
        return self._recording_stage(f"{Rule.CONVERT}.{layout}", [product], wanted, {"lora": [self._published]})

    def _publishing(self) -> Stage:
        others = products(self._project.settings, self._project.samples, self._paths)
        chosen, published = (
            lora_files(self._project.settings.train, lora) for lora in (self._published, self._paths.lora)
        )
        inputs = {"lora": chosen, "others": others}
        return self._recording_stage(Rule.PUBLISH, published, self._project.published_spec, inputs)

    # -- parts ------------------------------------------------------------------------------------------------------

    def _recording_stage(
        self,
        name: str,
        products: Sequence[Path],
        wanted: JsonObject,
        inputs: Mapping[str, Sequence[Path]],
        details: JsonObject | None = None,
    ) -> Stage:
        """A stage whose products record what they were made from."""
        records = [self._reader.made_from(self._root / product) for product in products]
        recorded = next((each for each in records if each != wanted), records[0])
        found = self._compare(products, recorded, wanted)
        return Stage(name, tuple(products), wanted, found, recorded, inputs, details or {})

    def _sample_stage(
        self,
        name: str,
        product: Path,
        wanted: JsonObject,
        inputs: Mapping[str, Sequence[Path]],
        details: JsonObject,
    ) -> Stage:
        """A stage of a sample: it may have been made by the job of a shard, and not been taken yet."""
        stage = self._recording_stage(name, [product], wanted, inputs, details)
        if stage.found is Found.RIGHT:
            return stage
        made = self._reader.made_from(self._root / self._paths.before_taken(product))
        return replace(stage, is_untaken=made == wanted)

    def _checking_stage(
        self, name: str, product: Path, wanted: JsonObject, inputs: Mapping[str, Sequence[Path]]
    ) -> Stage:
        """A stage whose product is a spec itself, which only records what was found good."""
        try:
            recorded: JsonObject | None = Spec.load(self._root / product).wanted
        except RecordError:
            recorded = None
        return Stage(name, (product,), wanted, self._compare([product], recorded, wanted), recorded, inputs)

    def _compare(self, products: Sequence[Path], recorded: JsonObject | None, wanted: JsonObject) -> Found:
        if recorded is None or not all((self._root / product).exists() for product in products):
            return Found.MISSING
        return Found.RIGHT if recorded == wanted else Found.WRONG


def _relative(path: Path, root: Path) -> Path:
    """A path as the rules name it: relative to the project folder if it is inside."""
    return path.relative_to(root) if path.is_relative_to(root) else path
