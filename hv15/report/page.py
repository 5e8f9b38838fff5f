"""`results/report.html`: everything about a trained LoRA on one page, which needs no other file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hv15.data.survey import counted
from hv15.errors import UserError
from hv15.pages.html import render
from hv15.pages.inlined import Inliner
from hv15.project import Project
from hv15.project.metadata import product_made_from, read_metadata
from hv15.project.products import lora_files
from hv15.records.json_values import JsonObject
from hv15.report.charts import ChartFigure, chart_figures, level_styles
from hv15.report.dataset import DatasetSummary, summarise_dataset
from hv15.report.provenance import ProvenanceRow, PublishedFile, provenance_rows, published_files
from hv15.report.samples import ShownPrompt, shown_prompts
from hv15.report.settings import SettingRow, setting_rows
from hv15.report.trained import TASKS, TrainedLoRA
from hv15.train.segments import segments_of_lora
from hv15.units import TIMES, duration, size
from hv15.workflow.segment_words import segment_words

TEMPLATE = Path(__file__).parent / "templates" / "report.html"


@dataclass(frozen=True)
class KeyNumber:
    """One of the numbers at the top of a page."""

    name: str
    value: str
    note: str = ""


class ResultsPage:
    """The content of the page of one project, or of one of its experiments.

    Args:
        project: its samples and its LoRA are finished.
        out: where the page will be.
        grid: whether the sheet of all checkpoints is shown.
    """

    def __init__(self, project: Project, out: Path, *, grid: bool = False) -> None:
        self._project, self._paths, self._has_grid = project, project.paths, grid
        self._inliner = Inliner(out.parent)

    def text(self, made_from: JsonObject | None = None) -> str:
        """Return the page.

        Raises:
            UserError: the LoRA or a sample is damaged, or a dataset cannot be used.
            OSError: a file is missing.
        """
        samples = self.samples  # first, since what does not fit on the page any more is only linked
        return render(TEMPLATE, {"page": self, "samples": samples, "levels": level_styles()}, made_from)

    # -- head -------------------------------------------------------------------------------------------------------

    @cached_property
    def lora(self) -> TrainedLoRA | None:
        """The published LoRA; None for a project that only samples."""
        return TrainedLoRA.read(self._paths) if self._project.settings.datasets else None

    @property
    def tells_all(self) -> bool:
        """Whether captions and places of files are shown."""
        return self._project.settings.convert.metadata == "full"

    @property
    def title(self) -> str:
        """The title of the LoRA, or else the name of the project's folder, with that of the experiment."""
        convert = self._project.settings.convert
        named = convert.output_name if "output_name" in convert.model_fields_set else self._project.root.resolve().name
        return convert.title or " / ".join(filter(None, (named, self._paths.run)))

    @property
    def description(self) -> str:
        return self._project.settings.convert.description

    @property
    def author(self) -> str:
        return self._project.settings.convert.author

    @property
    def sentence(self) -> str:
        """What was trained, or sampled, in one sentence."""
        lora = self.lora
        variant = self._project.models.variant
        if lora is None:
            return f"Samples of HunyuanVideo 1.5 ({variant}), without a LoRA of one's own."
        rank = f" of rank {lora.rank}" if lora.rank else ""
        words = f"A {lora.kind}{rank} for {TASKS[lora.task]} with HunyuanVideo 1.5 ({variant}), trained for "
        words += f"{counted(lora.steps, 'step')} on {counted(lora.clips, 'clip')}"
        if lora.largest is not None:
            frames, height, width = lora.largest
            words += f" of up to {counted(frames, 'frame')} and {width} {TIMES} {height} pixels"
        if lora.summary is not None and lora.is_last:
            words += f", in {duration(lora.summary.train_seconds)} on {lora.summary.device}"
        return f"{words}."

    @property
    def numbers(self) -> list[KeyNumber]:
        """The key numbers of the training."""
        lora = self.lora
        if lora is None:
            return []
        summary, best = lora.summary, lora.best
        found = [
            KeyNumber("Steps", f"{lora.steps:,}", f"{lora.epochs} epochs" if lora.epochs else ""),
            KeyNumber("Clips", f"{lora.clips:,}", f"of {counted(lora.media, 'file')}"),
            KeyNumber("Rank, alpha", ", ".join(filter(None, (lora.rank, lora.alpha))) or "several"),
            KeyNumber("Learning rate", lora.setting("learning_rate"), lora.setting("optimizer_type")),
            KeyNumber("Shift", lora.setting("discrete_flow_shift"), "of the noise levels"),
            KeyNumber("Seed", lora.setting("seed")),
        ]
        if best is not None and best.loss is not None:
            found.append(KeyNumber("Best validation", f"{best.loss:.4g}", f"at step {best.step:,}"))
        last = lora.validations[-1] if lora.validations else None
        if last is not best and last is not None and last.loss is not None:
            found.append(KeyNumber("Last validation", f"{last.loss:.4g}", f"at step {last.step:,}"))
        if summary is not None:
            of_all = "" if lora.is_last else f", of all {summary.steps:,} steps"
            if lora.is_last:
                found.append(KeyNumber("Loss", f"{summary.loss_last:.4g}", f"at the start {summary.loss_first:.4g}"))
            found += [
                KeyNumber(
                    "Time", duration(summary.train_seconds), _each(summary.train_seconds, summary.steps) + of_all
                ),
                KeyNumber("Memory", size(summary.memory_peak), "peak"),
            ]
        return [*found, KeyNumber("LoRA file", size(lora.size))]

    @property
    def published_step(self) -> int | None:
        """The step that was chosen for publishing; None: the last one."""
        return self._project.settings.train.publish_step

    @property
    def trainings(self) -> list[str]:
        """The trainings that made the LoRA one after the other, in words; empty if it was one."""
        lora = self.lora
        segments = segments_of_lora(lora.metadata) if lora else ()
        return segment_words(segments) if len(segments) > 1 else []

    # -- sections ---------------------------------------------------------------------------------------------------

    @cached_property
    def charts(self) -> list[ChartFigure]:
        """The curves of the training."""
        return chart_figures(self._paths.metrics) if self.lora else []

    @cached_property
    def samples(self) -> list[ShownPrompt]:
        """The prompts with their samples."""
        return shown_prompts(self._project.samples, self._paths, self._inliner, self._project.enlarged)

    @property
    def changed(self) -> str:
        """What the LoRA changed in the samples, in words, as the contact sheet says; "" if that is not known."""
        try:
            return read_metadata(self._paths.contact_sheet).get("Description", "")
        except (UserError, OSError):
            return ""

    @cached_property
    def grid(self) -> dict[str, str]:
        """The picture and the video of the samples of all checkpoints, as URLs; empty if they were not made."""
        if not self._has_grid:
            return {}
        return {
            "sheet": self._inliner.url(self._paths.checkpoint_sheet),
            "film": self._inliner.url(self._paths.checkpoint_film),
        }

    @property
    def linked(self) -> int:
        """The number of files that are not on the page, because it would become too large."""
        return len(self._inliner.linked)

    @cached_property
    def dataset(self) -> DatasetSummary | None:
        """What it was trained on."""
        return summarise_dataset(self._project, tells_all=self.tells_all) if self.lora else None

    @cached_property
    def settings(self) -> list[SettingRow]:
        """The settings of the training."""
        return setting_rows(self.lora.config, tells_all=self.tells_all) if self.lora else []

    @property
    def changed_settings(self) -> list[SettingRow]:
        """Those that differ from the defaults."""
        return [row for row in self.settings if row.differs]

    @property
    def provenance(self) -> list[ProvenanceRow]:
        """From what it was made."""
        specs = [*self._project.samples.values(), *self._project.enlarged.values()]
        models = {role: name for spec in specs for role, name in spec.models.items()}
        return provenance_rows(self.lora, models)

    @property
    def files(self) -> list[PublishedFile]:
        """The files of the LoRA."""
        if self.lora is None:
            return []
        settings = self._project.settings
        copies = [self._paths.converted(layout, settings.convert.output_name) for layout in settings.convert.formats]
        return published_files([*lora_files(settings.train, self._paths.lora), *copies], self._paths.results)

    @property
    def finished(self) -> str:
        """The day on which the training ended; "" if that is not known."""
        summary = self.lora.summary if self.lora else None
        return time.strftime("%Y-%m-%d", time.gmtime(summary.finished)) if summary else ""

    @property
    def lora_name(self) -> str:
        """The LoRA's path from the project folder."""
        return self._paths.lora.relative_to(self._project.root).as_posix()


def _each(seconds: float, steps: int) -> str:
    return f"{duration(seconds / steps)} a step" if steps else ""


def is_grid_of(project: Project, digest_of_grid: str) -> bool:
    """Whether the sheet of all checkpoints is the one that was planned for."""
    from hv15.digest import digest

    made_from = product_made_from(project.paths.checkpoint_sheet)
    return made_from is not None and digest(made_from) == digest_of_grid
