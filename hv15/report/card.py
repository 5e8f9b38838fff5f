"""The model card: `README.md` of a repository with the LoRA on the Hugging Face Hub.

It tells what `convert:` says, the training in numbers unless `convert.metadata` is `none`, and the samples of
`convert.gallery`. It names no file of this machine and quotes no other prompt and no caption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hv15.choices import PublishedLayout, Task
from hv15.data.survey import counted
from hv15.models.hub import OFFICIAL
from hv15.pages.markdown import render_markdown, with_made_from
from hv15.project import Project
from hv15.project.products import gallery_files
from hv15.records.json_values import Json, JsonObject
from hv15.report.trained import TASKS, TrainedLoRA
from hv15.terminal_text import one_line
from hv15.units import TIMES, size

TEMPLATE = Path(__file__).parent / "templates" / "card.md"
REPOSITORY = "USER/NAME"
"""Stands for the repository until it is known."""
_LICENCES = frozenset(
    (
        *("apache-2.0", "mit", "openrail", "creativeml-openrail-m", "unlicense", "wtfpl"),
        *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0"),
        *("gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "bsd-2-clause", "bsd-3-clause"),
    )
)
"""The Hub's own names of licences; others are `other` there."""
_USED_BY: Mapping[PublishedLayout, str] = {
    "comfyui": "ComfyUI",
    "diffusers": "diffusers",
    "official": "the official program",
}


@dataclass(frozen=True)
class CardFile:
    """A file of the repository."""

    name: str
    used_by: str
    size: str


@dataclass(frozen=True)
class CardNumber:
    """One fact about the training."""

    name: str
    value: str


class ModelCard:
    """The content of the card of one project, or of one of its experiments.

    Args:
        project: its LoRA and the LoRA's copies are finished.
    """

    def __init__(self, project: Project) -> None:
        self._project, self._paths, self._convert = project, project.paths, project.settings.convert

    def text(self, made_from: JsonObject | None = None) -> str:
        """Return the card.

        Raises:
            UserError: the LoRA is damaged.
            OSError: a file is missing.
        """
        text = render_markdown(TEMPLATE, {"card": self})
        return text if made_from is None else with_made_from(text, made_from)

    @cached_property
    def lora(self) -> TrainedLoRA:
        """The published LoRA."""
        return TrainedLoRA.read(self._paths)

    # -- front matter -----------------------------------------------------------------------------------------------

    @property
    def front_matter(self) -> str:
        """What the Hub reads, as YAML."""
        from huggingface_hub import ModelCardData

        convert, task = self._convert, self.lora.task
        widget: list[Json] = [{"text": text, "output": {"url": url}} for text, url in self.gallery]
        kind = "text-to-video" if task == "t2v" else "image-to-video"
        licence = convert.license
        is_known = licence.lower() in _LICENCES
        data = ModelCardData(
            base_model=OFFICIAL,
            base_model_relation="adapter",
            library_name="diffusers" if "diffusers" in convert.formats else None,
            pipeline_tag=kind,
            tags=["lora", "hunyuanvideo-1.5", kind, "template:diffusion-lora", *convert.tags],
            instance_prompt=", ".join(convert.trigger_words) or None,
            widget=widget or None,
            license=licence.lower() if is_known else "other" if licence else None,
            license_name=None if is_known else licence or None,
        )
        return data.to_yaml()

    @cached_property
    def gallery(self) -> list[tuple[str, str]]:
        """The prompt and the file in the repository of each sample that is shown."""
        samples = self._project.samples
        files = gallery_files(self._project.settings, samples, self._paths)
        return [
            (samples[name].prompt, file.relative_to(self._paths.results).as_posix()) for name, file in files.items()
        ]

    # -- text -------------------------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        named = self._convert.output_name if "output_name" in self._convert.model_fields_set else ""
        return self._convert.title or named or f"{self.lora.kind} for HunyuanVideo 1.5"

    @property
    def description(self) -> str:
        """As it is given: it may be Markdown."""
        return self._convert.description

    @property
    def author(self) -> str:
        return self._convert.author

    @property
    def licence(self) -> str:
        return self._convert.license

    @property
    def trigger_words(self) -> list[str]:
        return [one_line(word).replace("`", "'") for word in self._convert.trigger_words]

    @property
    def sentence(self) -> str:
        """What it is, in one sentence."""
        lora = self.lora
        return f"A {lora.kind} for {TASKS[lora.task]} with [HunyuanVideo 1.5](https://huggingface.co/{OFFICIAL})."

    @property
    def task(self) -> Task:
        return self.lora.task

    @property
    def base(self) -> str:
        """The base checkpoint of the one that it was trained on."""
        from hv15.models.variants import VARIANTS

        return VARIANTS[self._project.models.variant].base

    @property
    def repository(self) -> str:
        return REPOSITORY

    @property
    def files(self) -> list[CardFile]:
        """The LoRA's copies."""
        return [
            CardFile(file.name, _USED_BY[layout], size(file.stat().st_size)) for layout, file in self._copies.items()
        ]

    @property
    def _copies(self) -> dict[PublishedLayout, Path]:
        name = self._convert.output_name
        return {layout: self._paths.converted(layout, name) for layout in self._convert.formats}

    def file_for(self, layout: PublishedLayout) -> str:
        """Return the name of a copy; "" if there is none in this layout."""
        file = self._copies.get(layout)
        return "" if file is None else file.name

    @property
    def was_sampled(self) -> bool:
        """Whether the project has samples."""
        return bool(self._project.samples)

    @property
    def strength(self) -> float:
        """The strength at which it was sampled, or else that at which it was trained."""
        return self._project.settings.sample.lora_multiplier if self.was_sampled else 1.0

    @property
    def sampling(self) -> dict[str, float]:
        """Guidance, shift and steps of the samples, or else those of the checkpoint."""
        from hv15.models.variants import VARIANTS

        sample, variant = self._project.settings.sample, VARIANTS[self._project.models.variant]
        if not self.was_sampled:
            return {"guidance": variant.guidance_scale, "shift": variant.flow_shift, "steps": variant.infer_steps}
        chosen = {
            "guidance": (sample.guidance_scale, variant.guidance_scale),
            "shift": (sample.flow_shift, variant.flow_shift),
            "steps": (sample.infer_steps, variant.infer_steps),
        }
        return {name: own if own is not None else official for name, (own, official) in chosen.items()}

    @property
    def numbers(self) -> Sequence[CardNumber]:
        """The training in numbers; none if nothing is to be told."""
        if self._convert.metadata == "none":
            return []
        lora = self.lora
        found = [
            ("Checkpoint", self._project.models.variant),
            ("Steps", f"{lora.steps:,}" + (f" ({lora.epochs} epochs)" if lora.epochs else "")),
            ("Clips", f"{counted(lora.clips, 'clip')} of {counted(lora.media, 'file')}"),
            ("Rank, alpha", ", ".join(filter(None, (lora.rank, lora.alpha)))),
            ("Optimizer", f"{lora.setting('optimizer_type')}, learning rate {lora.setting('learning_rate')}"),
            ("Shift of the noise levels", lora.setting("discrete_flow_shift")),
            ("Seed", lora.setting("seed")),
        ]
        if lora.largest is not None:
            frames, height, width = lora.largest
            found.insert(3, ("Largest clip", f"{counted(frames, 'frame')} of {width} {TIMES} {height} pixels"))
        if lora.best is not None and lora.best.loss is not None:
            found.append(("Best validation loss", f"{lora.best.loss:.4g} at step {lora.best.step:,}"))
        found += [(f"Version of {name}", version) for name, version in lora.versions.items()]
        return [CardNumber(name, value) for name, value in found if value]
