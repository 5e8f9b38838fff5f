"""The captioned media of a project as they are on disk now, by content: names and paths do not enter a digest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hv15.config import DatasetSettings, digest_view, marked_view
from hv15.config.section import Affects
from hv15.config.training.validation import ValidationSettings
from hv15.data.captions import caption_key, captions_key
from hv15.data.index import FileIndex
from hv15.data.media import MediaFile, Source
from hv15.data.scan import survey
from hv15.data.survey import Survey
from hv15.digest import short, text_digest
from hv15.project.validation import held_out
from hv15.records.cache_paths import CachePaths
from hv15.records.problems import ConfigError, Location, Place, Problem
from hv15.records.trained_dataset import TrainedDataset, TrainedPair

if TYPE_CHECKING:
    from hv15.data.probed import Probed


class FoundSource(NamedTuple):
    """One captioned medium and the dataset that it is in."""

    dataset: int
    """Index in the config."""
    source: Source
    media: str
    """sha256 of the file's bytes."""
    caption: str
    """The key of its caption, or of the texts from which a training draws."""
    texts: tuple[str, ...]
    """The keys of these texts."""
    mask: str = ""
    """sha256 of the bytes of its mask; "" if it has none."""


class CaptionedMedium(NamedTuple):
    """One captioned medium of one dataset: what training draws from."""

    media: str
    caption: str
    """Keys of the two."""
    rule: str
    """Digest of the settings that cut the medium into clips."""
    dataset: int
    """Index in the config."""
    name: str
    """The medium's file, for messages."""
    texts: tuple[str, ...]
    """Keys of the texts from which a training draws; the first is the caption as it is written."""
    mask: str = ""
    """Key of its mask; "" if it has none."""

    @property
    def source_key(self) -> str:
        """The key of the medium's entry among the encoded clips."""
        return f"{self.media}-{self.rule}"

    @property
    def mask_source_key(self) -> str:
        """The key of the mask's entry among the encoded masks."""
        return masked_source_key(self.mask, self.source_key)


def masked_source_key(mask: str, source_key: str) -> str:
    """The key of a mask's entry among the encoded masks, from those of its file and of its medium's entry."""
    return f"{mask}-{source_key}"


def chosen(sources: Sequence[FoundSource], count: int) -> list[FoundSource]:
    """Return at most `count` of the media of a dataset: those with the smallest hashes of their content, in order.

    So a file that is added takes the place of at most one other, and the names do not matter.
    """

    def place(each: FoundSource) -> str:
        return text_digest(f"max_num_samples/{each.media}")

    kept = set(nsmallest(count, range(len(sources)), key=lambda index: (place(sources[index]), sources[index].caption)))
    return [each for index, each in enumerate(sources) if index in kept]


def clip_rule(dataset: DatasetSettings) -> str:
    """The digest of the settings that decide which frames a dataset's clips have and how they are resized.

    Every setting counts unless it is marked as not touching pixels (hv15.config.section).
    """
    return short(digest_view(dataset))


class ProjectDataset:
    """All datasets of a project: those that are trained on, then those of the validation.

    Args:
        trained: settings of the datasets that are trained on.
        validation: what is not trained on.
        root: the project folder, where relative paths start.
        store: the folder of the store, where the hashes and the properties of the media are remembered.
        only: what is trained on, if that is not everything that the datasets hold now.
    """

    def __init__(
        self,
        trained: Sequence[DatasetSettings],
        validation: ValidationSettings,
        root: Path,
        store: Path,
        only: TrainedDataset | None = None,
    ) -> None:
        self.datasets = (*trained, *validation.datasets)
        self._trained_count, self._fraction = len(trained), validation.fraction
        self._root, self._store, self._only = root, store, only

    def setting(self, number: int) -> Location:
        """The setting of a dataset, by its index in `datasets`."""
        count = self._trained_count
        return ("datasets", number) if number < count else ("train", "validation", "datasets", number - count)

    @cached_property
    def surveys(self) -> list[Survey]:
        """Each dataset as it is on disk now, with its problems and notes."""
        copies = CachePaths(self._store).remote
        return [survey(dataset, self._root, copies) for dataset in self.datasets]

    @cached_property
    def sources(self) -> list[FoundSource]:
        """Everything that the datasets hold now, of each at most `max_num_samples`.

        Raises:
            ConfigError: datasets cannot be used, or files of the validation are trained on; all of them at once.
        """
        self.refuse_unusable()
        found = [(number, source) for number, each in enumerate(self.surveys) for source in each.sources]
        masks = [source.mask for _, source in found if source.mask is not None]
        files: list[MediaFile] = [*(source for _, source in found), *masks]
        keys = FileIndex(CachePaths(self._store).media_hashes).media_keys(files)
        mask_keys = iter(keys[len(found) :])
        sources: list[FoundSource] = []
        for (number, source), key in zip(found, keys, strict=False):
            texts = tuple(map(caption_key, source.texts))
            mask = "" if source.mask is None else next(mask_keys)
            sources.append(FoundSource(number, source, key, captions_key(texts), texts, mask))
        if self._only is not None:
            sources = self._without_others(sources, self._only)
        for number, dataset in enumerate(self.datasets):
            if dataset.max_num_samples is not None:
                ours = chosen([each for each in sources if each.dataset == number], dataset.max_num_samples)
                sources = [each for each in sources if each.dataset != number] + ours
        self._refuse_twins(sources)
        return sources

    def _without_others(self, sources: Sequence[FoundSource], only: TrainedDataset) -> list[FoundSource]:
        """Leave out what would be trained on but is not in `only`. What is held out is so by its content alone."""
        count, identities = self._trained_count, self.identities
        kept = {(pair.media, pair.caption, pair.dataset, pair.mask) for pair in only.pairs}
        trained = (each for each in sources if each.dataset < count)
        aside = held_out((each.media for each in trained if not self.datasets[each.dataset].is_reg), self._fraction)
        return [
            each
            for each in sources
            if each.dataset >= count
            or each.media in aside
            or (each.media, each.caption, identities[each.dataset], each.mask) in kept
        ]

    def _refuse_twins(self, sources: Sequence[FoundSource]) -> None:
        validated = {each.media: each for each in sources if each.dataset >= self._trained_count}
        trained = {
            each.media: each.source.place
            for each in sources
            if each.media in validated and each.dataset < self._trained_count
        }
        twins = [each for each in sources if each.dataset >= self._trained_count and each.media in trained]
        if twins:
            raise ConfigError(
                Problem(
                    f"{each.source.place} is the same file as {trained[each.media]}, which is trained on",
                    "remove one of the two",
                    Place(setting=self.setting(each.dataset)),
                )
                for each in twins
            )

    @cached_property
    def held_out(self) -> frozenset[str]:
        """The media of the trained datasets that are held out for validation.

        Raises:
            ConfigError: see `sources`; or there is only one medium.
        """
        trained = (each for each in self.sources if each.dataset < self._trained_count)
        return held_out((each.media for each in trained if not self.datasets[each.dataset].is_reg), self._fraction)

    def is_validated(self, each: FoundSource | CaptionedMedium) -> bool:
        """Whether a medium of a dataset is measured by the validation.

        Raises:
            ConfigError: see `held_out`.
        """
        return not self.is_trained(each) and not self.datasets[each.dataset].is_reg

    def is_trained(self, each: FoundSource | CaptionedMedium) -> bool:
        """Whether the training draws from a medium of a dataset.

        Raises:
            ConfigError: see `held_out`.
        """
        return each.dataset < self._trained_count and each.media not in self.held_out

    def refuse_unusable(self) -> None:
        """Look at the names and captions of all files.

        Raises:
            ConfigError: a dataset cannot be used; all of them at once.
        """
        problems = [
            Problem(str(problem), problem.hint, Place(setting=self.setting(number)))
            for number, each in enumerate(self.surveys)
            for problem in each.listed()
        ]
        if problems:
            raise ConfigError(problems)

    @cached_property
    def trained_sources(self) -> list[FoundSource]:
        """Those of the sources that are trained on.

        Raises:
            ConfigError: see `held_out`.
        """
        if self._trained_count == len(self.datasets) and not self._fraction:
            return self.sources
        return [each for each in self.sources if self.is_trained(each)]

    @cached_property
    def texts(self) -> dict[str, str]:
        """Every text that the training may read, by its key: what is not trained on is shown only as it is written.

        Raises:
            ConfigError: see `held_out`.
        """
        found: dict[str, str] = {}
        for each in self.sources:
            read = each.source.texts if self.is_trained(each) else (each.source.caption,)
            found.update(zip(each.texts, read, strict=False))
        return found

    @cached_property
    def probed(self) -> Probed:
        """The properties of the files. A plan does not need them, so the decoders are imported here."""
        from hv15.data.probed import Probed

        return Probed(CachePaths(self._store).probed_media)

    @cached_property
    def rules(self) -> list[str]:
        """The clip rule of each dataset."""
        return [clip_rule(dataset) for dataset in self.datasets]

    @cached_property
    def identities(self) -> list[str]:
        """The identity of each dataset, whatever its place in the list: how it cuts and weights its clips."""
        return [
            short({"rule": rule, **marked_view(dataset, Affects.WEIGHT)})
            for rule, dataset in zip(self.rules, self.datasets, strict=True)
        ]

    @cached_property
    def all_pairs(self) -> list[CaptionedMedium]:
        """Every captioned medium, in an order that depends on content alone.

        Raises:
            ConfigError: see `sources`.
        """
        rules = self.rules
        pairs = [
            CaptionedMedium(media, caption, rules[dataset], dataset, self._name(source), texts, mask)
            for dataset, source, media, caption, texts, mask in self.sources
        ]
        return sorted(pairs)

    @cached_property
    def pairs(self) -> list[CaptionedMedium]:
        """What is trained on, in an order that depends on content alone.

        Raises:
            ConfigError: see `held_out`.
        """
        return [pair for pair in self.all_pairs if self.is_trained(pair)]

    @cached_property
    def validation_pairs(self) -> list[CaptionedMedium]:
        """What is measured by the validation, in an order that depends on content alone.

        Raises:
            ConfigError: see `held_out`.
        """
        return [pair for pair in self.all_pairs if self.is_validated(pair)]

    def _name(self, source: Source) -> str:
        """The path of a medium, relative to the project folder if it is inside."""
        return source.place.removeprefix(self._prefix)

    @cached_property
    def _prefix(self) -> str:
        """The project folder, which is left out of names."""
        return f"{self._root}/"

    @cached_property
    def digest(self) -> str:
        """The digest of all pairs that are trained on, with their masks and weights, without file names.

        Raises:
            ConfigError: see `held_out`.
        """
        return self._digest_of(self.trained_sources)

    @cached_property
    def validation_digest(self) -> str:
        """The same of the pairs that are measured by the validation.

        Raises:
            ConfigError: see `held_out`.
        """
        return self._digest_of([each for each in self.sources if self.is_validated(each)])

    def _digest_of(self, pairs: Sequence[FoundSource]) -> str:
        # As `hv15.digest.digest` of a sorted list of lists, in a third of the time; digests need no escapes in JSON.
        identities = self.identities
        masks = {each.mask: f',"{each.mask}"' if each.mask else "" for each in pairs}
        rows = sorted(
            f'["{each.media}","{each.caption}","{identities[each.dataset]}"{masks[each.mask]}]' for each in pairs
        )
        return text_digest(f"[{','.join(rows)}]")

    def record(self) -> TrainedDataset:
        """The dataset with file names, to be kept beside the LoRA that is trained on it.

        Raises:
            ConfigError: see `sources`.
        """
        pairs = [
            TrainedPair(each.name, each.media, each.caption, self.identities[each.dataset], each.mask)
            for each in self.pairs
        ]
        return TrainedDataset(self.digest, pairs)
