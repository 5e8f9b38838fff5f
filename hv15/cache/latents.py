"""Encodes clips: VAE latents and, for i2v, the SigLIP states of the first frame."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from hv15.cache.claims import Claims, rounds
from hv15.cache.encoding import Encoding, NeededClips
from hv15.data.ahead import DecodeJob, decode_ahead
from hv15.data.clips import Clip, missing_lengths, plan_clips
from hv15.data.media import MediaError, MediaInfo, Source
from hv15.data.pixels import Pixels
from hv15.digest import canonical, text_digest
from hv15.models.vae_pixels import encode_clips
from hv15.progress import Progress
from hv15.records.manifest import EncodedClip, Entry, Manifest, item_keys, read_entry

if TYPE_CHECKING:
    from hv15.models.vae import VAE
    from hv15.models.vision import ImageEncoder


log = logging.getLogger(__name__)


def clip_key(media: str, clip: Clip) -> str:
    """Return the store key of one clip of a medium: a digest of content, window, frame rates and bucket."""
    return text_digest(f'["{media}",{_identity(clip)}]')  # the digest of [media, clip.identity()]


@lru_cache(maxsize=1 << 12)
def _identity(clip: Clip) -> str:
    """The canonical JSON of a clip's identity, which many files share: 100,000 files have few different lengths."""
    return canonical(clip.identity())


@dataclass
class LatentEncoder:
    """Encodes the clips of a shard that are not in the store yet.

    Args:
        look: returns what a source of a media key shows, or raises a MediaError.
        load_vae, load_vision: called only if there is something to encode; `load_vision` is None for t2v.
        tile_size, overlap: see `VAE.encode`.
        dtype: of the stored tensors; None means float16 for what was computed in half precision, else float32.
        batch_size: clips of equal shape in a forward pass; affects only memory and speed.
        workers: number of decoding threads.
    """

    encoding: Encoding[NeededClips]
    look: Callable[[Source, str], MediaInfo]
    load_vae: Callable[[], VAE]
    load_vision: Callable[[], ImageEncoder] | None
    tile_size: int
    overlap: float
    dtype: torch.dtype | None
    batch_size: int
    workers: int
    encoded: int = 0
    kept: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """File -> the reason why it cannot be used."""

    def run(self, shard: int) -> Manifest:
        """Encode what is missing and return the shard's new manifest, in which unusable files are marked as skipped."""
        manifest = self.encoding.new_manifest(shard)
        jobs: dict[str, DecodeJob] = {}
        for key, need in self.encoding.by_shard[shard].items():
            entry, job = self._look_up(key, need)
            manifest.put(key, entry)
            if job:
                jobs[key] = job
        if jobs:
            for key, error in self._encode(jobs):
                manifest.put(key, self._skip(self.encoding.needed[key], error))
        return manifest

    def _look_up(self, key: str, need: NeededClips) -> tuple[Entry, DecodeJob | None]:
        """Return the manifest entry of a medium, and a job for those of its clips that are not in the store."""
        store, known = self.encoding.store, self.encoding.known.get(key)
        if known and (items := item_keys(key, known)) and all(store.has(item) for item in items):
            self.kept += len(items)
            return read_entry(known), None
        try:
            info = self.look(need.source, need.media)
            clips = {clip_key(need.media, clip): clip for clip in plan_clips(info, need.dataset)}
        except MediaError as error:
            return self._skip(need, error), None
        for note in info.notes:
            log.warning("%s: %s", need.source.place, note)
        missing = [clip for item, clip in clips.items() if not store.has(item)]
        self.kept += len(clips) - len(missing)
        entry = Entry(
            name=str(need.source.path),
            clips=tuple(EncodedClip(item, c.start, c.frames, c.height, c.width) for item, c in clips.items()),
            too_short_for=tuple(missing_lengths(info, need.dataset)),
            notes=info.notes,
        )
        job = DecodeJob(need.source.path, need.source.kind, missing, need.dataset, info, tag=key)
        return entry, job if missing else None

    def _skip(self, need: NeededClips, error: MediaError) -> Entry:
        name = str(need.source.path)
        self.failures[name] = error.message
        return Entry(name=name, skipped=error.message)

    def _encode(self, jobs: dict[str, DecodeJob]) -> Iterator[tuple[str, MediaError]]:
        """Decode and encode; yield (source key, error) of each medium that fails."""
        vae, vision = self.load_vae(), self.load_vision() if self.load_vision else None
        total = sum(len(job.clips) for job in jobs.values())
        broken: list[tuple[str, MediaError]] = []
        with Claims(self.encoding.store.folder) as claims, Progress(total, "encode clips", unit="clips") as progress:
            for claimed in rounds(jobs, claims, self._is_done):
                decoded = decode_ahead((job for _, job in claimed), self.workers)
                for batch in _equal_batches(decoded, self.batch_size, broken):
                    self._encode_batch(vae, vision, batch)
                    progress.advance(len(batch))
        yield from broken

    def _is_done(self, key: str, job: DecodeJob) -> bool:
        """Whether another process has encoded the clips in the meantime."""
        store, media = self.encoding.store, self.encoding.needed[key].media
        missing = [clip for clip in job.clips if not store.has(clip_key(media, clip))]
        self.kept += len(job.clips) - len(missing)
        job.clips[:] = missing
        return not missing

    @torch.inference_mode()
    def _encode_batch(self, vae: VAE, vision: ImageEncoder | None, batch: list[tuple[str, Clip, Pixels]]) -> None:
        """Encode clips of equal shape and store them."""
        device = next(vae.parameters()).device
        clips = torch.from_numpy(np.stack([pixels for _, _, pixels in batch])).to(device)
        latents = encode_clips(vae, clips, self.tile_size, self.overlap)
        states = vision.encode([pixels[0] for _, _, pixels in batch]) if vision else None
        for number, (source_key, clip, _) in enumerate(batch):
            item = {"latents": latents[number]} | ({"vision": states[number]} if states is not None else {})
            key = clip_key(self.encoding.needed[source_key].media, clip)
            self.encoding.store.write(key, {name: self._stored(value) for name, value in item.items()}, {})
            self.encoded += 1

    def _stored(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self.dtype or (torch.float32 if value.dtype == torch.float32 else torch.float16))


def _equal_batches(
    decoded: Iterable[tuple[DecodeJob, tuple[Clip, Pixels] | MediaError]],
    size: int,
    broken: list[tuple[str, MediaError]],
) -> Iterator[list[tuple[str, Clip, Pixels]]]:
    """Collect clips of equal shape into batches; errors go to `broken`, with the source's key."""
    waiting: dict[tuple[int, ...], list[tuple[str, Clip, Pixels]]] = defaultdict(list)
    for job, result in decoded:
        if isinstance(result, MediaError):
            broken.append((str(job.tag), result))
            continue
        clip, pixels = result
        batch = waiting[pixels.shape]
        batch.append((str(job.tag), clip, pixels))
        if len(batch) == size:
            yield batch
            waiting[pixels.shape] = []
    yield from (batch for batch in waiting.values() if batch)
