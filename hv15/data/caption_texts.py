"""The texts that a training reads for a caption: its variants, versions with other tags, a trigger word.

Every text is encoded before the training, so there is a fixed list of them for each clip. The list follows from the
caption and the dataset's settings alone: which text a sample gets is drawn later, in the training.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import shake_256
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
        self._separator, self._kept = dataset.tag_separator, dataset.keep_tags
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
        texts = tuple(
            self._whole(self._version(caption, number)) for caption in captions for number in range(self._versions)
        )
        return texts if len(set(texts)) > 1 else texts[:1]

    def _whole(self, caption: str) -> str:
        text = self._prefix + caption + self._suffix
        return text if self._trigger is None else text.replace(TRIGGER, self._trigger)

    def _version(self, caption: str, number: int) -> str:
        """Return a version of a caption: 0 is the caption itself, the others are drawn.

        The draw is determined by the caption's text and the number, so one more version, or another trigger word,
        leaves the others as they are. Each tag has two numbers from SHAKE-256: by the first the tags are sorted, and
        the second decides on the dropout.
        """
        tags = [tag for part in caption.split(self._separator) if (tag := part.strip())] if number else []
        count = len(tags) - self._kept
        if count < 1:
            return caption
        drawn = shake_256(f"tags/{number}/{caption}".encode()).digest(16 * count)
        words = struct.unpack(f">{2 * count}Q", drawn)
        order = sorted(range(count), key=words.__getitem__) if self._shuffles else range(count)
        chosen = [tags[self._kept + tag] for tag in order if words[count + tag] >= self._dropped_below]
        return f"{self._separator} ".join(tags[: self._kept] + chosen)
