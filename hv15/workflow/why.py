"""Why a stage has to run, in words that a person can act on: what its product records, compared with what is wanted."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

from hv15.cache.encoding import Encoding
from hv15.data.captions import caption_key
from hv15.project import Project
from hv15.project.checkpoints import STEP
from hv15.records.json_values import Json, JsonObject, RecordError, as_object, text_of
from hv15.records.manifest import Manifest
from hv15.records.outputs import DECODED, LATENTS
from hv15.records.paths import MANIFESTS, EncodedKind
from hv15.records.reasons import DueStage, DueStages
from hv15.records.rules import ENCODING_RULES, Rule, rule_words
from hv15.records.stage_names import rule_of, run_of, stage_of_run, subject_of
from hv15.records.trained_dataset import TrainedDataset, TrainedPair
from hv15.records.twins import twin_files
from hv15.sample.prompts import LOW
from hv15.terminal_text import one_line
from hv15.train.origin import ENTRY
from hv15.workflow.differences import change_of_settings, differences
from hv15.workflow.outcome import Outcome, outcome
from hv15.workflow.planner import Planner
from hv15.workflow.stage import Found, Stage

MOST_NAMED = 5
"""The most clips or captions of a stage that are named."""

_DECODING = tuple(rule for output in DECODED for rule in (output.rule, output.enlarging_rule))
_DECODED_LARGE = tuple(output.enlarging_rule for output in DECODED)
_DENOISING = (LATENTS.rule, LATENTS.enlarging_rule)
_DRAWN = (Rule.CONTACT_SHEET, Rule.SAMPLE_GRID)

TRAINING_NAMES = {
    "format": "hv15 trains in a new way.",
    "dit": "another transformer (models.dit).",
    "train.network_weights": "another file for train.network_weights.",
    "train.base_weights": "other files or strengths in train.base_weights.",
    f"train.{ENTRY}": f"another start (train.{ENTRY}).",
    "train.validation.clips": "other clips in the validation, which decides when it ends (patience).",
    "latents": "",
    "text": "",
    "masks": "",
    "dataset": "",
}
_SAMPLE = {
    "format": "hv15 samples in a new way.",
    "condition_format": "hv15 encodes first images in a new way.",
    "trained": "",
    "text": "",
    "models.dit": "another transformer (models.dit).",
    "models.vae": "another VAE (models.vae).",
    "models.image_encoder": "another image encoder (models.image_encoder).",
    "models.sr_dit": "another transformer of super resolution (models.sr_dit).",
    "models.upsampler": "another latent upsampler (models.upsampler).",
    "image": "another first image.",
    "loras": "other LoRAs besides the trained one.",
    "height": "video_size, height",
    "width": "video_size, width",
    "frames": "video_length",
    "steps": "infer_steps",
    "latents": "",
    LOW: "",
    "vae": "another VAE (models.vae).",
    "image_encoder": "another image encoder (models.image_encoder).",
    "size": "",
    "enlarged_to": "",
    "enlarges": "super resolution to another size.",
}
_ENLARGING = _SAMPLE | {"steps": "sr_steps", "flow_shift": "sr_flow_shift"}

_CONVERSION = {
    "format": "hv15 converts in a new way.",
    "about": "convert: says something else about it.",
    "trained": "",
    "layout": "",
}

_REPORT = {
    "format": "hv15 writes reports in a new way.",
    "about": "convert: says something else about it.",
    "grid": "the samples of the checkpoints are new.",
    "trained": "",
    "samples": "",
}

_CARD = {
    "format": "hv15 writes model cards in a new way.",
    "about": "convert: says something else about it.",
    "copies": "convert.formats",
    "trained": "",
    "samples": "",
}


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
                yield from self._encoding(stage, self._project.latents, "latents")
            case Rule.ENCODE_MASKS:
                yield from self._encoding(stage, self._project.masks, "masks")
            case Rule.ENCODE_TEXTS:
                yield from self._encoding(stage, self._project.texts, "text")
            case Rule.TRAIN if self._last_training:
                yield from self._training(self._last_training, stage.wanted)
            case rule if stage.recorded and rule in (*_DENOISING, Rule.SAMPLE_CONDITION, *_DECODING):
                names = _ENLARGING if rule == LATENTS.enlarging_rule else _SAMPLE
                yield from differences(stage.recorded, stage.wanted, names)
                yield from self._encoded_otherwise(stage.recorded, stage.wanted)
                yield from self._made_with(stage)
            case Rule.KEEP_CHECKPOINT if self._named(Rule.TRAIN) in self._planner.due:
                yield "the training comes to it"
            case Rule.CONVERT if stage.recorded:
                yield from differences(stage.recorded, stage.wanted, _CONVERSION)
                yield from self._made_with(stage)
            case Rule.CONTACT_SHEET | Rule.SAMPLE_GRID | Rule.PUBLISH if stage.recorded:
                yield from self._made_with(stage)
            case Rule.COMPARISON if stage.recorded:
                yield from comparison_changes(stage.recorded, stage.wanted)
            case Rule.REPORT if stage.recorded:
                yield from differences(stage.recorded, stage.wanted, _REPORT)
                yield from self._new_results(stage)
            case Rule.CARD if stage.recorded:
                yield from differences(stage.recorded, stage.wanted, _CARD)
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
                yield from differences(before, now, _SAMPLE)
        if stage.rule in (Rule.PUBLISH, *_DRAWN):
            yield from self._new_results(stage)

    def _new_results(self, stage: Stage) -> Iterator[str]:
        """What it shows, or is published with, that is made again."""
        above = [name for name in self._planner.above(stage.name) if name in self._planner.due]
        if any(rule_of(name) == Rule.PUBLISH for name in above):
            yield "the LoRA is new"
        new = [name for name in above if rule_of(name) in (*_DECODING, Rule.CONVERT, *_DRAWN)]
        yield from _first_few([subject_of(name) or rule_of(name).replace("_", " ") for name in new], "{} is new")

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

    # -- training ---------------------------------------------------------------------------------------------------

    def _training(self, recorded: JsonObject, wanted: JsonObject) -> Iterator[str]:
        yield from differences(*_with_patience(recorded, wanted), TRAINING_NAMES)
        yield from self._encoded_otherwise(recorded, wanted)
        if recorded.get("dataset") != wanted.get("dataset"):
            yield from self._dataset(recorded)

    def _encoded_otherwise(self, recorded: JsonObject, wanted: JsonObject) -> Iterator[str]:
        """The settings that now differ of what was encoded for it, by the digests in its spec."""
        for kind, encoding in self._encodings:
            both = isinstance(wanted.get(kind), str) and isinstance(recorded.get(kind), str)
            if both and recorded[kind] != wanted[kind]:
                former = settings_of(encoding, str(recorded.get(kind)))
                words = change_of_settings(former, encoding.settings, _plural(kind)) if former else []
                yield from words or [f"{_plural(kind)} are encoded with other settings"]

    @property
    def _encodings(self) -> list[tuple[EncodedKind, Encoding[object]]]:
        return [(each.kind, each) for each in self._project.encodings]

    def _dataset(self, recorded: JsonObject) -> Iterator[str]:
        former, now = self._former, self._project.dataset.record()
        former_digest = recorded.get("dataset")
        if former is None or not isinstance(former_digest, dict) or former.digest != former_digest.get("digest"):
            yield "the dataset changed"
            return
        validated = {pair.name for pair in self._project.dataset.validation_pairs}
        yield from dataset_changes(former, now, validated)

    @cached_property
    def _former(self) -> TrainedDataset | None:
        """The dataset of the last training, by name."""
        try:
            return TrainedDataset.load(self._project.paths.trained_dataset)
        except RecordError:
            return None

    # -- encoding ---------------------------------------------------------------------------------------------------

    def _encoding(self, stage: Stage, encoding: Encoding[object], kind: EncodedKind) -> Iterator[str]:
        shard, known = int(stage.subject), encoding.known
        wanted = encoding.by_shard[shard]
        new = [key for key in wanted if key not in known]
        if encoding.manifest(shard) is None and encoding.manifest_path(shard).exists():
            yield f"the list of the encoded {_plural(kind)} cannot be read"
        elif new and known:
            yield from {"latents": self._new_clips, "text": self._new_texts, "masks": self._new_masks}[kind](new)
        elif new and (self._last_training or {}).get(kind) == encoding.settings_digest:
            yield f"the list of the encoded {_plural(kind)} was lost"
        elif new:
            former = self._former_settings(encoding, kind)
            words = change_of_settings(former, encoding.settings, _plural(kind)) if former else []
            yield from words or [f"{len(new)} {_plural(kind)} are not encoded yet"]
        elif stage.recorded is not None:
            yield f"encoded {_plural(kind)} were lost from {encoding.store.folder}"
        else:
            yield f"cache.shards is {encoding.shards} now"

    def _former_settings(self, encoding: Encoding[object], kind: EncodedKind) -> JsonObject | None:
        """The settings with which the last training's items were encoded."""
        recorded = self._last_training or {}
        return settings_of(encoding, str(recorded.get(kind)))

    def _new_clips(self, keys: list[str]) -> Iterator[str]:
        latents = self._project.latents
        media = {key.partition("-")[0] for key in latents.known}
        names = {self._name(Path(text_of(entry, "name"))) for entry in latents.known.values()}
        if self._former is not None:  # manifests hold the full paths from when they were written
            names |= {pair.name for pair in self._former.pairs}
        changed, cut, new = list[str](), list[str](), list[str]()
        for key in keys:
            need = latents.needed[key]
            name = self._name(need.source.path)
            (cut if need.media in media else changed if name in names else new).append(name)
        yield from _first_few(new, "new clip {}")
        yield from _first_few(changed, "{} changed")
        yield from _first_few(cut, "clips of {} are cut in another way")

    def _new_masks(self, keys: list[str]) -> Iterator[str]:
        masks = self._project.masks
        files = {key.partition("-")[0] for key in masks.known}
        names = {self._name(Path(text_of(entry, "name"))) for entry in masks.known.values()}
        changed, cut, new = list[str](), list[str](), list[str]()
        for key in keys:
            need = masks.needed[key]
            name = self._name(need.file.path)
            (cut if need.mask in files else changed if name in names else new).append(name)
        yield from _first_few(new, "new mask {}")
        yield from _first_few(changed, "{} changed")
        yield from _first_few(cut, "{} is cut in another way, as its clip")

    def _new_texts(self, keys: list[str]) -> Iterator[str]:
        wanted = set(keys)
        former = {pair.name: pair.caption for pair in self._former.pairs} if self._former else {}
        changed, new = list[str](), list[str]()
        captions = set[str]()
        for pair in self._project.dataset.all_pairs:
            if found := wanted.intersection(pair.texts):
                captions |= found
                (changed if pair.name in former else new).append(pair.name)
        yield from _first_few(changed, "caption of {} changed")
        yield from _first_few(new, "new caption of {}")
        prompts = [
            name
            for name, spec in self._project.samples.items()
            if {caption_key(spec.prompt), caption_key(spec.negative_prompt)} & (wanted - captions)
        ]
        yield from _first_few(prompts, "new text of sample {}")

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._project.root)) if path.is_relative_to(self._project.root) else str(path)


def comparison_changes(old: JsonObject, new: JsonObject) -> Iterator[str]:
    """How two comparisons of experiments differ: in which of them, and in what of these."""
    before, now = _by_experiment(old), _by_experiment(new)
    yield from _first_few([name for name in now if name not in before], "{} is new")
    yield from _first_few([name for name in before if name not in now], "{} is no longer an experiment")
    if old.get("format") != new.get("format"):
        yield "hv15 compares experiments in a new way"
    both = [name for name in now if name in before]
    trained = [name for name in both if now[name][:1] != before[name][:1]]
    yield from _first_few(trained, "{} has another LoRA")
    yield from _first_few([name for name in both if name not in trained and now[name] != before[name]], "samples of {}")
    if before.keys() == now.keys() and [*before] != [*now]:
        yield "the experiments are in another order"


def _by_experiment(made_from: JsonObject) -> dict[str, list[Json]]:
    """What a comparison was made from, by experiment: LoRA and samples."""
    listed = made_from.get("experiments")
    entries = [each for each in listed if isinstance(each, list) and each] if isinstance(listed, list) else []
    return {str(name): rest for name, *rest in entries}


def _with_outcome(reasons: list[str], found: Outcome) -> list[str]:
    """The reasons and what follows from them; how the training begins stands in the line of a single reason."""
    words = [each for each in found if each]
    if found.begin and len(reasons) == 1:
        return [f"{reasons[0]}: {words[0]}", *words[1:]]
    return [*reasons, *words]


def _lora_of(made_from: JsonObject) -> Json:
    """What a sample says of its LoRA; a decoded one says it of its latents."""
    latents = made_from.get("latents")
    return latents.get("trained") if isinstance(latents, dict) else made_from.get("trained")


def dataset_changes(
    former: TrainedDataset, now: TrainedDataset, validated: Collection[str] = frozenset()
) -> Iterator[str]:
    """How two datasets differ, by the names of their files; `validated` are those that are not trained on now."""
    old, new = ({pair.name: pair for pair in each.pairs} for each in (former, now))
    added, gone = [name for name in new if name not in old], [name for name in old if name not in new]
    renamed = {_content(old[name]) for name in gone}
    yield from _first_few([name for name in added if _content(new[name]) not in renamed], "new clip {}")
    kept = {_content(new[name]) for name in added}
    gone = [name for name in gone if _content(old[name]) not in kept]
    yield from _first_few([name for name in gone if name in validated], "clip {} is for validation now")
    yield from _first_few([name for name in gone if name not in validated], "clip {} was removed")
    both = [(old[name], new[name]) for name in new if name in old]
    yield from _first_few([after.name for before, after in both if before.media != after.media], "{} changed")
    yield from _first_few(
        [after.name for before, after in both if before.caption != after.caption], "caption of {} changed"
    )
    for words, is_so in (
        ("{} has a mask now", lambda before, after: not before.mask and after.mask),
        ("{} has no mask any more", lambda before, after: before.mask and not after.mask),
        ("mask of {} changed", lambda before, after: before.mask and after.mask and before.mask != after.mask),
    ):
        yield from _first_few([after.name for before, after in both if is_so(before, after)], words)
    if sum(before.dataset != after.dataset for before, after in both):
        yield "the way a dataset's clips are cut or weighted changed"


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


def _content(pair: TrainedPair) -> tuple[str, str, str, str]:
    return pair.media, pair.caption, pair.dataset, pair.mask


def _printable(words: str) -> str:
    """Escape what is not UTF-8 in a file's name, and what a terminal would obey: the words go to logs, too."""
    return one_line(words.encode("utf-8", "backslashreplace").decode())


def _first_few(names: list[str], words: str) -> Iterator[str]:
    """One line for each of the first names; the others are counted."""
    for name in names[:MOST_NAMED]:
        yield words.format(name)
    if len(names) > MOST_NAMED:
        yield f"... and {len(names) - MOST_NAMED} more"


def _plural(kind: EncodedKind) -> str:
    return {"latents": "clips", "text": "captions", "masks": "masks"}[kind]


def settings_of(encoding: Encoding[object], settings_digest: str, manifests: Path | None = None) -> JsonObject | None:
    """The settings of another encoding of the project, by its digest, as its manifests record them.

    Args:
        manifests: the folder of the manifests, if it is not the encoding's own.
    """
    for path in sorted(((manifests or encoding.manifests_root) / settings_digest).glob(MANIFESTS)):
        try:
            return as_object(Manifest.load(path).settings)
        except RecordError:
            continue
    return None
