"""What the training gets: each clip with its caption, its bucket and its problems. Captions can be edited."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hv15.config import DatasetSettings, Settings
from hv15.data.caption_texts import CaptionTexts
from hv15.data.media import IMAGE_SUFFIXES, MaskFile, MediaError, MediaInfo, MediaKind, Source
from hv15.data.scan import survey
from hv15.data.survey import CaptionProblem
from hv15.records.cache_paths import CachePaths
from tui.data.captions import NO_CAPTION, Item, write_caption
from tui.data.clips import DecodedClip, Pixels, fitted, load_clip, still

__all__ = ["NO_CAPTION", "DatasetReader", "Item", "preview", "thumbnail", "write_caption"]

BAD_CAPTION = "its caption:"
MOST_PROBLEMS = 1000

Stamp = tuple[Path, int, int, int, MaskFile | None]
"""What the facts about an item follow from."""


@dataclass(frozen=True)
class FileFacts:
    """What a file shows about an item."""

    frames: int | None = None
    height: int | None = None
    width: int | None = None
    seconds: float | None = None
    clips: tuple[str, ...] = ()
    problem: str = ""
    """What is wrong with it."""


@dataclass(frozen=True)
class Overview:
    """The items that match a search, and what is known of all items."""

    items: list[Item]
    """Those that match."""
    count: int
    """Of all items."""
    captions: int
    """Distinct texts: each is encoded once."""
    masks: int
    """Items with a mask."""
    bad: int
    """Items with something wrong."""
    buckets: dict[str, int]
    """Clips of each size, with repeats, the most frequent first; from the files probed so far."""


class DatasetReader:
    """All datasets of a config. `load` is quick; `probe` opens every file that is new and may take minutes."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self.settings, self.root = settings, root
        self.items: list[Item] = []
        self.problems: tuple[str, ...] = ()
        self.error = ""
        self._probed: dict[Stamp, FileFacts] = {}
        self._caption_texts = [CaptionTexts(dataset) for dataset in settings.datasets]
        self._writing = threading.Lock()
        """Held while `items` changes: captions are edited while files are probed."""

    def remember(self, earlier: DatasetReader) -> None:
        """Take over what another reader of the same datasets has found in the files."""
        if earlier.settings.datasets == self.settings.datasets:
            self._probed = dict(earlier._probed)

    def load(self) -> None:
        """Find all items with their captions. Results of earlier probes are kept for unchanged files."""
        items: list[Item] = []
        problems: list[str] = []
        self.error = ""
        for number, dataset in enumerate(self.settings.datasets):
            found = survey(dataset, self.root)
            items += (_item(number, dataset, source) for source in found.sources)
            for problem in found.problems:
                if isinstance(problem, CaptionProblem):
                    items += _uncaptioned(number, dataset, problem)
                problems.append(f"datasets[{number}]: {problem}")
        self.problems = tuple(problems[:MOST_PROBLEMS])
        with self._writing:
            self.items = [self._remembered(item) for item in items]
        if not items:
            self.error = self.problems[0] if self.problems else "no datasets"

    def _remembered(self, item: Item) -> Item:
        known = self._probed.get(_stamp(item))
        return item if known is None else _with_facts(item, known)

    def probe(self, cancel: threading.Event | None = None) -> Iterator[int]:
        """Probe each file that was not probed yet; yield the index of each item that is now complete."""
        remembered = _Remembered(self.settings)
        for index, item in enumerate(list(self.items)):
            if cancel is not None and cancel.is_set():
                return
            if item.probed or not self._is_at(index, item):
                continue
            facts = self._probed[_stamp(item)] = self._facts(item, remembered)
            with self._writing:
                found = self._is_at(index, item)  # the items may have been loaded again, and the caption edited
                if found:
                    self.items[index] = _with_facts(self.items[index], facts)
            if found:
                yield index

    def _is_at(self, index: int, item: Item) -> bool:
        return index < len(self.items) and self.items[index].path == item.path

    def _facts(self, item: Item, remembered: _Remembered) -> FileFacts:
        """What the file of an item shows."""
        from hv15.data.clips import missing_lengths, plan_clips
        from hv15.data.masks import check_mask

        dataset = self.settings.datasets[item.dataset]
        facts = FileFacts()
        try:
            info = remembered.info(item)
            times = info.timeline
            seconds = float(times.duration * times.tick) if item.kind == "video" else None
            facts = FileFacts(len(times.times), info.height, info.width, seconds)
            clips = tuple(f"{clip.frames} x {clip.height} x {clip.width}" for clip in plan_clips(info, dataset))
            if item.mask is not None:
                check_mask(remembered.info(item.mask), info)
            missing = missing_lengths(info, dataset)
            problem = f"too short for {', '.join(map(str, missing))} frames" if missing else ""
            return replace(facts, clips=clips, problem=problem)
        except MediaError as error:
            return replace(facts, problem=error.reason if error.path == item.path else error.message)
        except Exception as error:  # a damaged file may break a decoder in unforeseen ways
            return replace(facts, problem=f"cannot be read: {type(error).__name__}: {error}")

    def overview(self, words: str = "") -> Overview:
        """Search all items. With 50,000 that takes a third of a second, so call it in a thread.

        Args:
            words: only items with these words in their name or caption are listed; the case does not matter.
        """
        items, without, wanted = list(self.items), (NO_CAPTION, BAD_CAPTION), words.lower()
        buckets: Counter[str] = Counter()
        for item in items:
            for clip in item.clips:
                buckets[clip] += self.settings.datasets[item.dataset].num_repeats
        return Overview(
            [item for item in items if wanted in item.path.name.lower() or wanted in item.caption.lower()]
            if wanted
            else items,
            len(items),
            len({text for item in items if not item.problem.startswith(without) for text in self._texts(item)}),
            sum(item.mask is not None for item in items),
            sum(bool(item.problem) for item in items),
            dict(buckets.most_common()),
        )

    def _texts(self, item: Item) -> Sequence[str]:
        """The texts that a training reads for an item."""
        made_of = self._caption_texts[item.dataset]
        if item.is_list:
            return made_of.of(item.caption.split("\n"))
        return made_of.of(made_of.captions(item.caption, in_row=item.row is not None and not item.is_default))

    def replace(self, old: Item, new: Item) -> None:
        """Replace an item by one with an edited caption, and keep all that was found out about its file meanwhile."""
        with self._writing:
            edited = self._remembered(new)
            self.items = [edited if _place(item) == _place(old) else item for item in self.items]


class _Remembered:
    """What the workflow already knows about the project's files."""

    def __init__(self, settings: Settings) -> None:
        from hv15.data.index import FileIndex
        from hv15.data.probed import Probed

        cache = CachePaths(settings.resolve(settings.cache.directory))
        self._index, self._probed = FileIndex(cache.media_hashes), Probed(cache.probed_media)

    def info(self, item: Item | MaskFile) -> MediaInfo:
        """Return what a file shows.

        Raises:
            MediaError: it cannot be used.
        """
        from hv15.data.probe import probe

        key = self._index.known_key(item.path, item.size, item.mtime_ns, item.inode)
        known = self._probed.known(item.path, item.kind, key) if key is not None else None
        return known if known is not None else probe(item.path, item.kind)


def thumbnail(item: Item, width: int, height: int) -> Pixels:
    """Return the first picture, uint8 [H, W, 3], in at most `width` x `height` pixels.

    Raises:
        UserError: it is missing or damaged.
    """
    from PIL import Image

    picture = still(item.path, 0)
    return np.asarray(picture.resize(fitted(*picture.size, max(1, width), max(1, height)), Image.Resampling.BOX))


def preview(item: Item, width: int, height: int, cancel: threading.Event | None = None) -> DecodedClip:
    """Return the whole medium at a small size.

    Raises:
        UserError: it is missing or damaged.
    """
    return load_clip(item.path, width, height, cancel)


def _item(number: int, dataset: DatasetSettings, source: Source) -> Item:
    return Item(
        dataset=number,
        path=source.path,
        kind=source.kind,
        caption=source.written,
        caption_file=Path(source.caption_file),
        row=source.row,
        is_default=source.is_default,
        is_list=source.is_list,
        prefix=dataset.caption_prefix,
        suffix=dataset.caption_suffix,
        size=source.size,
        mtime_ns=source.mtime_ns,
        inode=source.inode,
        mask=source.mask,
    )


def _uncaptioned(number: int, dataset: DatasetSettings, problem: CaptionProblem) -> Iterator[Item]:
    """The item whose caption is missing or cannot be read."""
    path = Path(problem.media)
    try:
        status = path.stat()
    except OSError:
        return  # the medium is gone, too
    is_image = path.suffix.lower() in IMAGE_SUFFIXES
    kind: MediaKind = "frames" if path.is_dir() else "image" if is_image else "video"
    yield Item(
        dataset=number,
        path=path,
        kind=kind,
        caption="",
        caption_file=Path(problem.caption_file),
        prefix=dataset.caption_prefix,
        suffix=dataset.caption_suffix,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        problem=f"{BAD_CAPTION} {problem.reason}" if problem.reason else NO_CAPTION,
    )


def _with_facts(item: Item, facts: FileFacts) -> Item:
    return replace(
        item,
        frames=facts.frames,
        height=facts.height,
        width=facts.width,
        seconds=facts.seconds,
        clips=facts.clips,
        problem=item.problem or facts.problem,
    )


def _place(item: Item) -> tuple[int, Path, Path, int | None]:
    """What identifies an item; it never changes."""
    return item.dataset, item.path, item.caption_file, item.row


def _stamp(item: Item) -> Stamp:
    return item.path, item.dataset, item.size, item.mtime_ns, item.mask
