"""Why clips, captions and masks have to be encoded, in words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from hv15.cache.encoding import Encoding
from hv15.data.captions import caption_key
from hv15.project import Project
from hv15.records.json_values import JsonObject, RecordError, as_object, text_of
from hv15.records.manifest import Manifest
from hv15.records.paths import MANIFESTS, EncodedKind
from hv15.records.trained_dataset import TrainedDataset
from hv15.workflow.differences import change_of_settings, first_few
from hv15.workflow.stage import Stage


class EncodingReasons:
    """The reasons of one run's encodings, compared with what its last training read.

    Args:
        last_training: what the trained LoRA was made from; empty if there is none.
    """

    def __init__(self, project: Project, last_training: JsonObject) -> None:
        self._project, self._last_training = project, last_training

    @cached_property
    def trained_dataset(self) -> TrainedDataset | None:
        """The dataset of the last training, by name."""
        try:
            return TrainedDataset.load(self._project.paths.trained_dataset)
        except RecordError:
            return None

    def changed_settings(self, recorded: JsonObject, wanted: JsonObject) -> Iterator[str]:
        """The settings that now differ of what was encoded for it, by the digests in its spec."""
        for encoding in self._project.encodings:
            kind = encoding.kind
            both = isinstance(wanted.get(kind), str) and isinstance(recorded.get(kind), str)
            if both and recorded[kind] != wanted[kind]:
                former = settings_of(encoding, str(recorded.get(kind)))
                words = change_of_settings(former, encoding.settings, _plural(kind)) if former else []
                yield from words or [f"{_plural(kind)} are encoded with other settings"]

    def of_shard(self, stage: Stage, encoding: Encoding[object]) -> Iterator[str]:
        """Why a shard is encoded: what is new in it, or what was lost."""
        kind, shard, known = encoding.kind, int(stage.subject), encoding.known
        wanted = encoding.by_shard[shard]
        new = [key for key in wanted if key not in known]
        if encoding.manifest(shard) is None and encoding.manifest_path(shard).exists():
            yield f"the list of the encoded {_plural(kind)} cannot be read"
        elif new and known:
            yield from {"latents": self._new_clips, "text": self._new_texts, "masks": self._new_masks}[kind](new)
        elif new and self._last_training.get(kind) == encoding.settings_digest:
            yield f"the list of the encoded {_plural(kind)} was lost"
        elif new:
            former = settings_of(encoding, str(self._last_training.get(kind)))
            words = change_of_settings(former, encoding.settings, _plural(kind)) if former else []
            yield from words or [f"{len(new)} {_plural(kind)} are not encoded yet"]
        elif stage.recorded is not None:
            yield f"encoded {_plural(kind)} were lost from {encoding.store.folder}"
        else:
            yield f"cache.shards is {encoding.shards} now"

    def _new_clips(self, keys: list[str]) -> Iterator[str]:
        latents = self._project.latents
        media = {key.partition("-")[0] for key in latents.known}
        names = {self._name(Path(text_of(entry, "name"))) for entry in latents.known.values()}
        if self.trained_dataset is not None:  # manifests hold the full paths from when they were written
            names |= {pair.name for pair in self.trained_dataset.pairs}
        needs = [latents.needed[key] for key in keys]
        wanted = [(self._name(need.source.path), need.media in media) for need in needs]
        new, changed, cut = _told_apart(wanted, names)
        yield from first_few(new, "new clip {}")
        yield from first_few(changed, "{} changed")
        yield from first_few(cut, "clips of {} are cut in another way")

    def _new_masks(self, keys: list[str]) -> Iterator[str]:
        masks = self._project.masks
        files = {key.partition("-")[0] for key in masks.known}
        names = {self._name(Path(text_of(entry, "name"))) for entry in masks.known.values()}
        needs = [masks.needed[key] for key in keys]
        wanted = [(self._name(need.file.path), need.mask in files) for need in needs]
        new, changed, cut = _told_apart(wanted, names)
        yield from first_few(new, "new mask {}")
        yield from first_few(changed, "{} changed")
        yield from first_few(cut, "{} is cut in another way, as its clip")

    def _new_texts(self, keys: list[str]) -> Iterator[str]:
        wanted = set(keys)
        former = {pair.name: pair.caption for pair in self.trained_dataset.pairs} if self.trained_dataset else {}
        changed, new = list[str](), list[str]()
        captions = set[str]()
        for pair in self._project.dataset.all_pairs:
            if found := wanted.intersection(pair.texts):
                captions |= found
                (changed if pair.name in former else new).append(pair.name)
        yield from first_few(changed, "caption of {} changed")
        yield from first_few(new, "new caption of {}")
        prompts = [
            name
            for name, spec in self._project.samples.items()
            if {caption_key(spec.prompt), caption_key(spec.negative_prompt)} & (wanted - captions)
        ]
        yield from first_few(prompts, "new text of sample {}")

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._project.root)) if path.is_relative_to(self._project.root) else str(path)


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


def _told_apart(wanted: list[tuple[str, bool]], former: set[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the names of files that are new, that changed, and that stayed but are cut in another way.

    Args:
        wanted: each name, and whether something of a file with this content is encoded.
        former: the names that were encoded before.
    """
    changed, cut, new = list[str](), list[str](), list[str]()
    for name, is_known in wanted:
        (cut if is_known else changed if name in former else new).append(name)
    return new, changed, cut
