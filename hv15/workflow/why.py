"""Why a stage has to run, in words that a person can act on: what its product records, compared with what is wanted."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property

from hv15.project import Project
from hv15.project.checkpoints import STEP
from hv15.records.json_values import Json, JsonObject, as_object
from hv15.records.outputs import DECODED, LATENTS, enlarged
from hv15.records.reasons import DueStage, DueStages
from hv15.records.rules import ENCODING_RULES, Rule, rule_words
from hv15.records.stage_names import rule_of, run_of, stage_of_run, subject_of
from hv15.records.twins import twin_files
from hv15.sample.prompts import LOW
from hv15.terminal_text import one_line
from hv15.workflow.comparing import comparison_changes
from hv15.workflow.dataset_changes import dataset_changes
from hv15.workflow.differences import differences, first_few
from hv15.workflow.encoding_reasons import EncodingReasons
from hv15.workflow.outcome import Outcome, outcome
from hv15.workflow.planner import Planner
from hv15.workflow.setting_names import (
    CARD_NAMES,
    CONVERSION_NAMES,
    ENLARGING_NAMES,
    REPORT_NAMES,
    SAMPLE_NAMES,
    TRAINING_NAMES,
)
from hv15.workflow.stage import Found, Stage

_DECODING = tuple(rule for output in DECODED for rule in (output.rule, output.enlarging_rule))
_DECODED_LARGE = tuple(output.enlarging_rule for output in DECODED)
_DENOISING = (LATENTS.rule, LATENTS.enlarging_rule)
_DRAWN = (Rule.CONTACT_SHEET, Rule.SAMPLE_GRID)


class Reasons:
    """Puts the reasons of one plan into words."""

    def __init__(self, project: Project, planner: Planner) -> None:
        self._project, self._planner = project, planner
        self._runs: dict[str, _ReasonsOfRun] = {}

    def due(self) -> DueStages:
        """Everything that has to run, and why."""
        return DueStages(tuple(self.stage(name) for name in self._planner.running))

    def stage(self, name: str) -> DueStage:
        """One stage that has to run."""
        run = run_of(name)
        if run not in self._runs:
            self._runs[run] = _ReasonsOfRun(self._project.experiment(run), self._planner)
        return self._runs[run].stage(name)

    def sentence(self, name: str) -> str:
        """The reasons of a stage in one line; "" for one that does not have to run. Of a shard, what it makes."""
        if name in self._planner.shards:
            return self._planner.shards[name].words
        return "; ".join(self.stage(name).reasons) if name in self._planner.due else ""


class _ReasonsOfRun:
    """The reasons of the stages of the base config, or of an experiment."""

    def __init__(self, project: Project, planner: Planner) -> None:
        self._project, self._planner = project, planner

    def stage(self, name: str) -> DueStage:
        """One stage that has to run."""
        stage = self._planner.stages[name]
        title = rule_words(stage.rule)
        found = [_printable(words) for words in dict.fromkeys(self._reasons_of(stage))]
        found = found or [self._fallback(stage)]
        if stage.rule == Rule.TRAIN and not twin_files(stage.details):
            found = _with_outcome(found, outcome(self._project, stage.wanted))
        products = tuple(str(product) for product in stage.products)
        if stage.rule in ENCODING_RULES.values():
            title += f", shard {stage.wanted['shard']}"
        elif stage.subject:
            title += f" {stage.subject}"
        if stage.run:
            title = f"{stage.run}: {title}"
        return DueStage(name, title, tuple(found), products)

    def _fallback(self, stage: Stage) -> str:
        if stage.found is not Found.MISSING:
            return "it was made from something else"
        there = all(map(self._planner.exists, stage.products))
        return f"{stage.products[0].name} cannot be read" if there else "not made yet"

    def _reasons_of(self, stage: Stage) -> Iterator[str]:
        if twin := twin_files(stage.details):
            yield f"it is the same as {twin[0]}, which is copied"
            return
        match stage.rule:
            case Rule.ENCODE_LATENTS:
                yield from self._encodings.of_shard(stage, self._project.latents)
            case Rule.ENCODE_MASKS:
                yield from self._encodings.of_shard(stage, self._project.masks)
            case Rule.ENCODE_TEXTS:
                yield from self._encodings.of_shard(stage, self._project.texts)
            case Rule.TRAIN if self._last_training:
                yield from self._training(self._last_training, stage.wanted)
            case rule if stage.recorded and rule in (*_DENOISING, Rule.SAMPLE_CONDITION, *_DECODING):
                names = ENLARGING_NAMES if rule == LATENTS.enlarging_rule else SAMPLE_NAMES
                yield from differences(stage.recorded, stage.wanted, names)
                yield from self._encodings.changed_settings(stage.recorded, stage.wanted)
                yield from self._made_with(stage)
            case Rule.KEEP_CHECKPOINT if self._named(Rule.TRAIN) in self._planner.due:
                yield "the training comes to it"
            case Rule.CONVERT if stage.recorded:
                yield from differences(stage.recorded, stage.wanted, CONVERSION_NAMES)
                yield from self._made_with(stage)
            case Rule.CONTACT_SHEET | Rule.SAMPLE_GRID | Rule.PUBLISH if stage.recorded:
                yield from self._made_with(stage)
            case Rule.COMPARISON if stage.recorded:
                yield from comparison_changes(stage.recorded, stage.wanted)
            case Rule.REPORT if stage.recorded:
                yield from differences(stage.recorded, stage.wanted, REPORT_NAMES)
                yield from self._new_results(stage)
            case Rule.CARD if stage.recorded:
                yield from differences(stage.recorded, stage.wanted, CARD_NAMES)
                if as_object(stage.recorded.get("samples", {})).keys() != as_object(stage.wanted["samples"]).keys():
                    yield "other samples are shown (convert.gallery)"
                yield from self._new_results(stage)
            case Rule.CHECK_MODELS | Rule.DEMO_MODELS if stage.found is Found.WRONG:
                yield "the model files changed"
            case _ if stage.rule.startswith("download") and stage.found is Found.WRONG:
                yield "another revision is wanted"

    def _named(self, rule: str) -> str:
        """The stage of a rule without wildcards, of this run."""
        return stage_of_run(self._project.run, rule)

    def _made_with(self, stage: Stage) -> Iterator[str]:
        """What it reads that is made again."""
        above = [name for name in self._planner.above(stage.name) if name in self._planner.due]
        denoised = [name for name in above if rule_of(name) in _DENOISING]
        is_sampled = bool(denoised) and stage.rule in (*_DECODING, LATENTS.enlarging_rule)
        if self._trains_again(above):
            yield "the LoRA is trained again"
        elif is_sampled:
            yield "it is enlarged again" if stage.rule in _DECODED_LARGE else "it is sampled again"
        elif stage.rule == Rule.PUBLISH and self._other_step:
            yield self._other_step
        elif stage.recorded and _lora_of(stage.recorded) != _lora_of(stage.wanted):
            yield self._other_step or "it was made with another LoRA"
        below = LOW if stage.rule == LATENTS.enlarging_rule else "latents"
        if stage.recorded and below in stage.wanted and not is_sampled:  # what it reads is already the new one
            before, now = stage.recorded.get(below), stage.wanted.get(below)
            if isinstance(before, dict) and isinstance(now, dict):
                yield from differences(before, now, SAMPLE_NAMES)
        if stage.rule in (Rule.PUBLISH, *_DRAWN):
            yield from self._new_results(stage)

    def _new_results(self, stage: Stage) -> Iterator[str]:
        """What it shows, or is published with, that is made again."""
        above = [name for name in self._planner.above(stage.name) if name in self._planner.due]
        if any(rule_of(name) == Rule.PUBLISH for name in above):
            yield "the LoRA is new"
        new = [name for name in above if rule_of(name) in (*_DECODING, Rule.CONVERT, *_DRAWN)]
        yield from first_few([_result_of(name) for name in new], "{} is new")

    def _trains_again(self, above: Collection[str]) -> bool:
        """Whether, of these stages, one that makes the LoRA runs because it is trained."""
        makers = [name for name in above if rule_of(name) in (Rule.TRAIN, Rule.KEEP_CHECKPOINT)]
        reached = {*makers, *(each for name in makers for each in self._planner.above(name))}
        return self._named(Rule.TRAIN) in reached & self._planner.due

    @property
    def _other_step(self) -> str:
        """That the LoRA is to be published after another step than it was, in words; "" if it is not."""
        published = self._planner.stages.get(self._named(Rule.PUBLISH))
        if published is None or published.recorded is None:
            return ""
        old, new = ({STEP: spec.get(STEP)} for spec in (published.recorded, published.wanted))
        return "".join(differences(old, new, {STEP: "train.publish_step"}))

    @property
    def _last_training(self) -> JsonObject | None:
        """What the trained LoRA was made from; while it is missing, what the published one was."""
        stages = (self._planner.stages.get(self._named(rule)) for rule in (Rule.TRAIN, Rule.PUBLISH))
        recorded = (stage.recorded for stage in stages if stage is not None)
        return next((each for each in recorded if each and STEP not in each), None)

    @cached_property
    def _encodings(self) -> EncodingReasons:
        return EncodingReasons(self._project, self._last_training or {})

    # -- training ---------------------------------------------------------------------------------------------------

    def _training(self, recorded: JsonObject, wanted: JsonObject) -> Iterator[str]:
        yield from differences(*_with_patience(recorded, wanted), TRAINING_NAMES)
        yield from self._encodings.changed_settings(recorded, wanted)
        if recorded.get("dataset") != wanted.get("dataset"):
            yield from self._dataset(recorded)

    def _dataset(self, recorded: JsonObject) -> Iterator[str]:
        former, now = self._encodings.trained_dataset, self._project.dataset.record()
        former_digest = recorded.get("dataset")
        if former is None or not isinstance(former_digest, dict) or former.digest != former_digest.get("digest"):
            yield "the dataset changed"
            return
        validated = {pair.name for pair in self._project.dataset.validation_pairs}
        yield from dataset_changes(former, now, validated)


def _with_outcome(reasons: list[str], found: Outcome) -> list[str]:
    """The reasons and what follows from them; how the training begins stands in the line of a single reason."""
    words = [each for each in found if each]
    if found.begin and len(reasons) == 1:
        return [f"{reasons[0]}: {words[0]}", *words[1:]]
    return [*reasons, *words]


def _result_of(stage: str) -> str:
    """What a stage makes, by its name: `panda`, `panda.sr`, `contact sheet`."""
    subject = subject_of(stage)
    if rule_of(stage) in _DECODED_LARGE:
        return enlarged(subject)
    return subject or rule_of(stage).replace("_", " ")


def _lora_of(made_from: JsonObject) -> Json:
    """What a sample says of its LoRA; a decoded one says it of its latents."""
    latents = made_from.get("latents")
    return latents.get("trained") if isinstance(latents, dict) else made_from.get("trained")


def _with_patience(recorded: JsonObject, wanted: JsonObject) -> tuple[JsonObject, JsonObject]:
    """Two specs of a training; if only one of them can end early, of its validation only what lets it."""
    trains = [as_object(spec.get("train", {})) for spec in (recorded, wanted)]
    validations = [as_object(train.get("validation", {})) for train in trains]
    if all(validations):
        return recorded, wanted
    before, after = ({key: value for key, value in each.items() if key == "patience"} for each in validations)
    return (
        {**recorded, "train": {**trains[0], "validation": before}},
        {**wanted, "train": {**trains[1], "validation": after}},
    )


def _printable(words: str) -> str:
    """Escape what is not UTF-8 in a file's name, and what a terminal would obey: the words go to logs, too."""
    return one_line(words.encode("utf-8", "backslashreplace").decode())
