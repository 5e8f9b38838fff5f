"""The stages of samples: their first images, their latents, what these are decoded to, and pictures of many of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from hv15.choices import ENLARGING_ROLES
from hv15.digest import digest
from hv15.project import Project
from hv15.project.checkpoints import lora_after, promised_steps, will_be_kept
from hv15.project.grids import GridRow, grid_rows, sample_rows
from hv15.project.products import sheet_samples
from hv15.records import formats
from hv15.records.fields import to_json
from hv15.records.json_values import JsonObject, as_object
from hv15.records.outputs import LATENTS, SampleOutput, decoded_outputs, subject
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule
from hv15.sample.prompts import LOW, SampleSpec
from hv15.workflow.model_stages import ModelStages
from hv15.workflow.recorded_stages import RecordedStages
from hv15.workflow.stage import Found, Stage


class SampleStages:
    """Makes the stages of one run's samples.

    Args:
        texts: the manifests of the encoded prompts.
        published: the LoRA that is published, with which they are sampled.
    """

    def __init__(
        self, project: Project, recorded: RecordedStages, models: ModelStages, *, texts: list[Path], published: Path
    ) -> None:
        self._project, self._recorded, self._models = project, recorded, models
        self._texts, self._published = texts, published
        self._paths, self._root = ProjectPaths(run=project.paths.run), project.root

    @property
    def _text(self) -> str:
        """The digest that stands for the encoding of the prompts."""
        return self._project.texts.settings_digest

    def conditions(self) -> Iterator[Stage]:
        """Yield the first images of samples and previews, and once more at the size of super resolution."""
        models = {"models": self._models.made("vae", "image_encoder"), "checked": self._models.checked}
        specs = [*self._project.samples.values(), *self._project.previews, *self._project.enlarged.values()]
        for name, spec in {spec.name: spec for spec in reversed(specs) if spec.image}.items():
            product, details = self._paths.condition(name), JsonObject({"sample": spec.to_json()})
            stage = f"{Rule.SAMPLE_CONDITION}.{name}"
            yield self._recorded.of_sample(stage, product, spec.conditioning(), models, details)

    def sample(self, spec: SampleSpec, step: int | None = None) -> Iterator[Stage]:
        """Yield the stages of a sample with the published LoRA, or with that after a step."""
        name, train = spec.name, self._project.settings.train
        details: JsonObject = {"sample": spec.to_json()}
        lora = list[Path]()
        trained = self._project.trained_digest if step is None else digest(self._project.spec_after(step))
        if spec.lora_multiplier is not None:
            lora = [self._published if step is None else lora_after(train, step, self._paths)]
            if same := self._same(name, step):
                details["same"] = str(same)
        condition = [self._paths.condition(name)] if spec.image else []
        denoised = spec.denoising(trained, self._text)
        latents, where = LATENTS.path(self._paths, name, step), subject(name, step)
        yield self._recorded.of_sample(
            f"{LATENTS.rule_of(step)}.{where}",
            latents,
            denoised,
            {
                "lora": lora,
                "condition": condition,
                "manifests": self._texts,
                "models": self._models.made("dit"),
            },
            details,
        )
        for output in decoded_outputs(spec.output_type):
            product, wanted = output.path(self._paths, name, step), spec.decoding_of(denoised)
            yield self._decoding(f"{output.rule_of(step)}.{where}", output, product, latents, wanted, details)

    def enlarged(self, small: SampleSpec, spec: SampleSpec) -> Iterator[Stage]:
        """Yield what super resolution makes of a sample with the published LoRA, from its latents."""
        trained, details = self._project.trained_digest, JsonObject({"sample": spec.to_json()})
        low, latents = small.denoising(trained, self._text), LATENTS.path(self._paths, spec.name)
        yield self._recorded.of_sample(
            f"{LATENTS.enlarging_rule}.{small.name}",
            latents,
            spec.denoising(trained, self._text, low),
            {
                LOW: [LATENTS.path(self._paths, small.name)],
                "lora": [self._published] if spec.lora_multiplier is not None else [],
                "condition": [self._paths.condition(spec.name)] if spec.image else [],
                "manifests": self._texts,
                "models": self._models.made(*ENLARGING_ROLES),
                "checked": self._models.checked,
            },
            details,
        )
        for output in decoded_outputs(spec.output_type):
            product, wanted = output.path(self._paths, spec.name), spec.decoding(trained, self._text, low)
            name = f"{output.enlarging_rule}.{small.name}"
            yield self._decoding(name, output, product, latents, wanted, details)

    def _decoding(
        self, name: str, output: SampleOutput, product: Path, latents: Path, wanted: JsonObject, details: JsonObject
    ) -> Stage:
        """The decoding of a sample's latents to one of its outputs."""
        inputs = {"latents": [latents], "models": self._models.made("vae")}
        stage = self._recorded.of_sample(name, product, wanted, inputs, details)
        frames = as_object(details["sample"])["frames"]
        whole = not output.is_folder or len(list((self._root / product).glob("*.png"))) == frames
        return stage if whole else replace(stage, found=Found.MISSING)

    def _same(self, name: str, step: int | None) -> Path | None:
        """The latents that may be the same, and are copied then: those of the published LoRA, those of its step."""
        if step is not None:
            return LATENTS.path(self._paths, name)
        train = self._project.settings.train
        published = train.publish_step or train.max_train_steps
        return None if published is None else LATENTS.path(self._paths, name, published)

    @cached_property
    def promised(self) -> list[int]:
        """The steps whose LoRA will be kept."""
        train, spec, paths = self._project.settings.train, self._project.training_spec, self._project.paths
        return [step for step in promised_steps(train) if will_be_kept(train, spec, paths, step)]

    def checkpoint_grid(self) -> Stage | None:
        """Return the sheet of all checkpoints that are kept, or else will be; None if there is nothing to show."""
        rows = grid_rows(self._project.samples, self._paths, [*self._project.kept] or self.promised)
        if not rows:
            return None
        made_from: JsonObject = {row.name: self._cells(row) for row in rows}
        drawn = [self._paths.checkpoint_sheet, self._paths.checkpoint_film]
        return self._grid(Rule.CHECKPOINT_GRID, drawn, rows, made_from)

    def _grid(self, rule: Rule, drawn: Sequence[Path], rows: Sequence[GridRow], made_from: JsonObject) -> Stage:
        """A picture and a video of samples side by side."""
        files = [cell.file for row in rows for cell in row.cells]
        wanted: JsonObject = {"format": formats.GRID, "samples": made_from}
        details: JsonObject = {"rows": [to_json(row) for row in rows]}
        return self._recorded.stage(rule, drawn, wanted, {"samples": files}, details)

    def _cells(self, row: GridRow) -> JsonObject:
        """What the cells of a row are made from, by step; "" for the sample without the LoRA."""
        found: JsonObject = {}
        for cell in row.cells:
            trained = None if cell.step is None else digest(self._project.spec_after(cell.step))
            spec = self._project.samples[cell.sample]
            found[str(cell.step or "")] = digest(spec.decoding(trained, self._text))
        return found

    def sheet(self) -> Iterator[Stage]:
        """Yield the picture of all samples: strengths and LoRAs side by side, or the contact sheet."""
        trained, small, large = self._project.trained_digest, self._project.samples, self._project.enlarged
        if rows := sample_rows(self._project.settings, small, self._paths):
            made_from: JsonObject = {
                row.name: {cell.label: digest(small[cell.sample].decoding(trained, self._text)) for cell in row.cells}
                for row in rows
            }
            drawn = [self._paths.sample_grid, self._paths.sample_film]
            yield self._grid(Rule.SAMPLE_GRID, drawn, rows, made_from)
            return
        compared = sheet_samples(small, large, self._paths)
        if not compared:
            return
        names = [file for row in compared.values() for file in row.files]
        samples = self.decoded(small) | self.decoded_large()
        product = self._paths.contact_sheet
        yield self._recorded.stage(Rule.CONTACT_SHEET, [product], {"samples": samples}, {"samples": names})

    def decoded(self, samples: Mapping[str, SampleSpec]) -> JsonObject:
        """Return what samples are made from, by name."""
        return {name: self._digests[name] for name in samples}

    @cached_property
    def _digests(self) -> dict[str, str]:
        """Of what all samples are made from, by name."""
        trained = self._project.trained_digest
        return {name: digest(spec.decoding(trained, self._text)) for name, spec in self._project.samples.items()}

    def decoded_large(self) -> JsonObject:
        """Return what the samples are made from that super resolution has made, by name."""
        small, trained, text = self._project.samples, self._project.trained_digest, self._text
        return {
            spec.name: digest(spec.decoding(trained, text, small[name].denoising(trained, text)))
            for name, spec in self._project.enlarged.items()
        }
