"""The texts that a training reads for a caption: its variants, versions with other tags, a trigger word.

Every text is encoded before the training, so there is a fixed list of them for each clip. The list follows from the
caption and the dataset's settings alone: which text a sample gets is drawn later, in the training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import shake_256
from struct import Struct
from typing import TYPE_CHECKING

from hv15.data.captions import plain

if TYPE_CHECKING:
    from hv15.config.datasets import DatasetSettings

TRIGGER = "{trigger}"
"""What the trigger word replaces."""
MOST_VARIANTS = 1000
"""Most captions of one clip."""

_WORD = 1 << 64


class CaptionTexts:
    """Makes the texts of the clips of one dataset."""

    def __init__(self, dataset: DatasetSettings) -> None:
        self.has_variants = dataset.caption_variants
        self._prefix, self._suffix, self._trigger = dataset.caption_prefix, dataset.caption_suffix, dataset.trigger
        self._separator, self._joint, self._kept = dataset.tag_separator, f"{dataset.tag_separator} ", dataset.keep_tags
        self._shuffles, self._dropped_below = dataset.shuffle_tags, int(dataset.tag_dropout * _WORD)
        self._versions = dataset.caption_versions if dataset.draws_tags else 1

    def captions(self, written: str, *, in_row: bool) -> Sequence[str]:
        """Return the captions in a text: with variants, the lines that are not empty, unless it is in a JSONL file."""
        if not self.has_variants or in_row:
            return (written,)
        return [line for part in written.split("\n") if (line := plain(part))] or [""]

    def of(self, captions: Sequence[str]) -> tuple[str, ...]:
        """Return the texts of one clip: of each of its captions all versions, the caption as it is written first.

        A clip without a choice has one text, so that it stays the same when variants or versions are switched on.
        """
        if self._versions == len(captions) == 1:  # nearly always, and there may be 100,000
            return (self._whole(captions[0]),)
        texts = tuple(self._whole(version) for caption in captions for version in self._versions_of(caption))
        return texts if len(set(texts)) > 1 else texts[:1]

    def _whole(self, caption: str) -> str:
        text = self._prefix + caption + self._suffix
        return text if self._trigger is None else text.replace(TRIGGER, self._trigger)

    def _versions_of(self, caption: str) -> Iterator[str]:
        """Yield a caption as it is written, and then versions of it with drawn tags.

        The draw is determined by the caption's text and the number of the version, so one more version, or another
        trigger word, leaves the others as they are. Each tag has two numbers from SHAKE-256: by the first the tags are
        sorted, and the second decides on the dropout.
        """
        yield caption
        tags = [tag for part in caption.split(self._separator) if (tag := part.strip())]
        kept, others = tags[: self._kept], tags[self._kept :]
        numbers = Struct(f">{2 * len(others)}Q")
        for version in range(1, self._versions):
            if not others:
                yield caption
                continue
            words = numbers.unpack(shake_256(f"tags/{version}/{caption}".encode()).digest(numbers.size))
            order = sorted(range(len(others)), key=words.__getitem__) if self._shuffles else range(len(others))
            chosen = [others[tag] for tag in order if words[len(others) + tag] >= self._dropped_below]
            yield self._joint.join(kept + chosen)
