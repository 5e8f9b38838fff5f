"""Makes the masks of clips ready for training: weights of latent positions, cut, cropped and resized as the clips."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from hv15.cache.encoding import Encoding, NeededMask, mask_key
from hv15.cache.latents import clip_key
from hv15.data.clips import Clip, plan_clips
from hv15.data.mask_weights import Weights, read_weights
from hv15.data.media import MediaError, MediaFile, MediaInfo
from hv15.data.survey import counted
from hv15.progress import Progress
from hv15.records.manifest import EncodedClip, Entry, Manifest, item_keys, read_entry


@dataclass(frozen=True)
class _Job:
    """The clips of one medium whose masks are missing."""

    key: str
    need: NeededMask
    mask: MediaInfo
    clip: MediaInfo
    clips: list[Clip]


@dataclass
class MaskEncoder:
    """Makes the masks of a shard that are not in the store yet.

    Args:
        look: returns what a file of a key shows, or raises a MediaError.
        workers: number of decoding threads.
    """

    encoding: Encoding[NeededMask]
    look: Callable[[MediaFile, str], MediaInfo]
    workers: int
    encoded: int = 0
    kept: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """File -> the reason why it cannot be used."""

    def run(self, shard: int) -> Manifest:
        """Make what is missing and return the shard's new manifest, in which unusable masks are marked as skipped."""
        manifest = self.encoding.new_manifest(shard)
        jobs: list[_Job] = []
        for key, need in self.encoding.by_shard[shard].items():
            entry, job = self._look_up(key, need)
            manifest.put(key, entry)
            if job is not None:
                jobs.append(job)
        with ThreadPoolExecutor(self.workers, "mask") as pool, Progress(len(jobs), "masks", unit="files") as progress:
            for job, result in zip(jobs, pool.map(_made, jobs), strict=True):
                if isinstance(result, MediaError):
                    manifest.put(job.key, self._skip(job.need, result))
                else:
                    self._store(job.need, result)
                    if black := sum(not weights.any() for _, weights in result):
                        note = f"the mask is black in {counted(black, 'clip')}, from which nothing is learnt there"
                        manifest.put(job.key, replace(manifest.entry(job.key), notes=(note,)))
                progress.advance()
        return manifest

    def _look_up(self, key: str, need: NeededMask) -> tuple[Entry, _Job | None]:
        """Return the manifest entry of a mask, and a job for those of its clips that are not in the store."""
        store, known = self.encoding.store, self.encoding.known.get(key)
        if known and (items := item_keys(key, known)) and all(store.has(item) for item in items):
            self.kept += len(items)
            return read_entry(known), None
        try:
            clip, mask = self.look(need.source, need.media), self.look(need.file, need.mask)
            clips = {mask_key(need.mask, clip_key(need.media, each)): each for each in plan_clips(clip, need.dataset)}
        except MediaError as error:
            return self._skip(need, error), None
        missing = [each for item, each in clips.items() if not store.has(item)]
        self.kept += len(clips) - len(missing)
        entry = Entry(
            name=need.file.place,
            clips=tuple(EncodedClip(item, c.start, c.frames, c.height, c.width) for item, c in clips.items()),
        )
        return entry, _Job(key, need, mask, clip, missing) if missing else None

    def _skip(self, need: NeededMask, error: MediaError) -> Entry:
        self.failures[need.file.place] = error.message
        return Entry(name=need.file.place, skipped=error.message)

    def _store(self, need: NeededMask, made: list[tuple[Clip, Weights]]) -> None:
        import torch

        for clip, weights in made:
            key = mask_key(need.mask, clip_key(need.media, clip))
            self.encoding.store.write(key, {"mask": torch.from_numpy(weights).half()}, {})
            self.encoded += 1


def _made(job: _Job) -> list[tuple[Clip, Weights]] | MediaError:
    try:
        return list(read_weights(job.mask, job.clip, job.clips, job.need.dataset))
    except MediaError as error:
        return error
