"""From the store to batches: the order of items in a training, and reading them.

The order depends only on the items' content and the seed, not on file names or the order of a listing. The batch at any
position can be computed, so to resume a training, only the number of finished steps is needed.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from hv15.errors import UserError
from hv15.spans import WHOLE, Span

if TYPE_CHECKING:
    from torch import Tensor

    from hv15.models import Condition


@dataclass(frozen=True)
class LossRule:
    """How the clips of a dataset enter the loss; see the settings of the same names (hv15.config.datasets)."""

    is_reg: bool = False
    targets_prior: bool = False
    """Whether their target is the prediction without the LoRA, instead of their own velocity."""
    unmasked_weight: float = 0.0
    unmasked_probability: float = 0.0
    masked_prior_preservation_weight: float = 0.0


@dataclass(frozen=True)
class TrainingItem:
    """One clip with its caption, by their keys in the store."""

    clip: str
    """Key of the latents item."""
    caption: str
    """Key of the text item; the first, if the training draws from several."""
    shape: tuple[int, int, int]
    """Latent frames, latent height, latent width. Only equal shapes share a batch."""
    dataset: str = ""
    """Identity of its dataset, from content and settings alone, so that the order of datasets does not affect the
    training. Only clips of equal datasets share a batch."""
    batch_size: int = 1
    repeats: int = 1
    """How often it occurs in an epoch."""
    variants: tuple[str, ...] = ()
    """Keys of all text items from which one is drawn each time it is shown; empty if there is only one."""
    loss_weight: float = 1.0
    """What its loss is multiplied by."""
    span: Span = WHOLE
    """The steps of the training in which it takes part."""
    name: str = field(default="", compare=False)
    """The clip's file, for messages."""
    mask: str = ""
    """Key of the item with its mask; "" if it has none."""
    loss: LossRule = LossRule()
    """The same for all items of a dataset."""


@dataclass(frozen=True)
class MicroBatch:
    """The input of one forward pass: items of equal shape, and their position in the whole training."""

    epoch: int
    items: tuple[TrainingItem, ...]
    first_sample: int
    """Global index of the first sample: the number of samples before it in this and all previous epochs."""

    @property
    def samples(self) -> range:
        """Global sample indices, which seed all random draws of these samples."""
        return range(self.first_sample, self.first_sample + len(self.items))

    @property
    def loss(self) -> LossRule:
        return self.items[0].loss  # items of a batch are of equal datasets


def epoch_batches(items: Sequence[TrainingItem], seed: int, epoch: int) -> list[list[int]]:
    """Return the batches of an epoch as lists of indices into `items`, with each item `repeats` times.

    Items with equal (dataset, shape) are shuffled and divided into batches of their dataset's size; the rest is a
    smaller batch, so that none is dropped. Then the batches are shuffled. Shuffling means sorting by a hash of seed,
    epoch and content keys.
    """
    groups: dict[tuple[str, tuple[int, int, int]], list[tuple[bytes, int]]] = defaultdict(list)
    twins: dict[tuple[str, str, str], int] = defaultdict(int)  # equal clips of a dataset need different hashes
    for index, item in enumerate(items):
        identity = (item.dataset, item.clip, item.caption)
        for _ in range(item.repeats):
            twins[identity] += 1
            name = f"{seed}/{epoch}/{item.dataset}/{item.clip}/{item.caption}/{twins[identity]}"
            groups[item.dataset, item.shape].append((hashlib.sha256(name.encode()).digest(), index))
    batches: list[tuple[bytes, list[int]]] = []
    for group in groups.values():
        group.sort()
        size = items[group[0][1]].batch_size
        for start in range(0, len(group), size):
            part = group[start : start + size]
            place = hashlib.sha256(b"batch" + part[0][0]).digest()  # the item's hash would sort low hashes first again
            batches.append((place, [index for _, index in part]))
    return [indices for _, indices in sorted(batches)]


class BatchStream:
    """The endless sequence of micro-batches of a training: epoch after epoch, each in its own order.

    Args:
        first_epoch, first_sample: number of epochs and samples of the training before this sequence.

    Raises:
        UserError: there are no items.
    """

    def __init__(self, items: Sequence[TrainingItem], seed: int, first_epoch: int = 0, first_sample: int = 0) -> None:
        if not items:
            raise UserError("no clips to train on", hint="see the report of the encoding: all clips may be left out")
        self.items = items
        self.seed = seed
        self.first_epoch, self.first_sample = first_epoch, first_sample
        self.samples_per_epoch = sum(item.repeats for item in items)
        self._order = lru_cache(maxsize=2)(self._epoch_order)  # reading ahead looks into the next epoch
        self.batches_per_epoch = len(self._order(0)[0])  # the same in all epochs

    def __getitem__(self, index: int) -> MicroBatch:
        """Return the micro-batch at a position, counted over all epochs of this sequence."""
        epoch, place = divmod(index, self.batches_per_epoch)
        batches, starts = self._order(epoch)
        first_sample = self.first_sample + epoch * self.samples_per_epoch + starts[place]
        return MicroBatch(self.first_epoch + epoch, tuple(self.items[i] for i in batches[place]), first_sample)

    def index_at(self, sample: int) -> int:
        """Return the position of the first micro-batch that begins at a sample or after it.

        Args:
            sample: global index of a sample.
        """
        epoch, place = divmod(sample - self.first_sample, self.samples_per_epoch)
        _, starts = self._order(epoch)
        return epoch * self.batches_per_epoch + bisect_left(starts, place)

    @property
    def samples_per_batch(self) -> float:
        """Samples of a micro-batch, in the mean over an epoch."""
        return self.samples_per_epoch / self.batches_per_epoch

    def samples_before(self, index: int) -> int:
        """Return the number of samples of the training before the micro-batch at a position."""
        return self[index].first_sample

    def epochs(self, index: int) -> float:
        """Return the number of epochs of the training, including a fraction, before the micro-batch at a position."""
        return self.first_epoch + index / self.batches_per_epoch

    def finished_epochs(self, index: int) -> int:
        return self.first_epoch + index // self.batches_per_epoch

    def begun_epochs(self, index: int) -> int:
        """Return the number of epochs of the training that are begun before a position."""
        return self.first_epoch - -index // self.batches_per_epoch

    def index_after(self, epochs: int) -> int:
        """Return the position at which so many epochs of the training are finished."""
        return (epochs - self.first_epoch) * self.batches_per_epoch

    def _epoch_order(self, epoch: int) -> tuple[list[list[int]], list[int]]:
        """Return an epoch's batches, and the number of samples in the epoch before each."""
        batches = epoch_batches(self.items, self.seed, self.first_epoch + epoch)
        return batches, list(accumulate((len(batch) for batch in batches), initial=0))


class Readable(Protocol):
    """What a training needs of a store (`hv15.cache.store.Store`)."""

    def has(self, key: str) -> bool: ...

    def read(self, key: str) -> dict[str, Tensor]:
        """Return an item's tensors: latents [C, F, h, w] and perhaps vision [729, 1152], or text and glyphs [L, D], or
        mask [F, h, w]."""


@dataclass(frozen=True)
class Stores:
    """The stores with the items of a training."""

    latents: Readable
    texts: Readable
    masks: Readable | None = None
    """None if no clip has a mask."""


@dataclass(frozen=True)
class Batch:
    """The content of a micro-batch, on the CPU and in the store's dtypes."""

    latents: Tensor
    """Unscaled latents [B, C, F', h, w]."""
    condition: Condition


def read_batch(
    stores: Stores, items: Sequence[TrainingItem], *, captions: Sequence[str], with_vision: Sequence[bool]
) -> Batch:
    """Read items of equal shape and stack them; texts are padded with zeros to the longest.

    Args:
        captions: key of each sample's text item, which differs from the item's after caption dropout.
        with_vision: whether each sample gets the first frame's image features; if none does, `vision` is None.

    Raises:
        UserError: an item is missing, damaged, or not the planned one.
    """
    import torch

    from hv15.models import Condition

    clips = [stores.latents.read(item.clip) for item in items]
    texts = [stores.texts.read(caption) for caption in captions]
    for item, clip in zip(items, clips, strict=True):
        if tuple(clip["latents"].shape[1:]) != item.shape:
            raise UserError(
                f"latents item {item.clip[:12]}: shape {tuple(clip['latents'].shape[1:])}, expected {item.shape}",
                hint="run `hv15 repair`, then the same command again",
            )
    vision = _stack_vision(items, clips, with_vision)
    return Batch(
        torch.stack([clip["latents"] for clip in clips]),
        Condition(
            text=_padded([text["text"] for text in texts]),
            text_lengths=[len(text["text"]) for text in texts],
            glyphs=_padded([text["glyphs"] for text in texts]),
            glyph_lengths=[len(text["glyphs"]) for text in texts],
            vision=vision,
            vision_lengths=None if vision is None else [vision.shape[1] if use else 0 for use in with_vision],
        ),
    )


def read_masks(stores: Stores, items: Sequence[TrainingItem], used: Sequence[bool]) -> Tensor | None:
    """Return how much each position of items of equal shape counts in the loss: [B, F, h, w], fp32, from 0 to 1.

    Args:
        used: for each item, whether its mask is used; without a mask, all positions count 1.

    Returns:
        None if all positions of all items count 1.

    Raises:
        UserError: an item is missing, damaged, or not the planned one.
    """
    import torch

    if not any(use and item.mask for item, use in zip(items, used, strict=True)):
        return None
    assert stores.masks is not None
    masks = []
    for item, use in zip(items, used, strict=True):
        mask = stores.masks.read(item.mask)["mask"].float() if use and item.mask else torch.ones(item.shape)
        if tuple(mask.shape) != item.shape:
            raise UserError(
                f"mask item {item.mask[:12]}: shape {tuple(mask.shape)}, expected {item.shape}",
                hint="run `hv15 repair`, then the same command again",
            )
        masks.append(mask)
    return torch.stack(masks)


def _stack_vision(
    items: Sequence[TrainingItem], clips: Sequence[dict[str, Tensor]], with_vision: Sequence[bool]
) -> Tensor | None:
    """Return vision states [B, 729, 1152], with zeros for samples without them; None if no sample has them."""
    import torch

    for item, clip, use in zip(items, clips, with_vision, strict=True):
        if use and "vision" not in clip:
            raise UserError(
                f"latents item {item.clip[:12]} holds no image features, which i2v needs",
                hint="run the encoding again with task: i2v: the item was encoded for t2v",
            )
    used = [clip["vision"] for clip, use in zip(clips, with_vision, strict=True) if use]
    if not used:
        return None
    nothing = torch.zeros_like(used[0])
    return torch.stack([clip["vision"] if use else nothing for clip, use in zip(clips, with_vision, strict=True)])


def _padded(states: Sequence[Tensor]) -> Tensor:
    """Stack [L_i, D] into [B, max L_i, D], padded with zeros at the end."""
    from torch.nn.utils.rnn import pad_sequence

    return pad_sequence(list(states), batch_first=True)
