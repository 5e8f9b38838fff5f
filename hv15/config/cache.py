"""`cache:` how clips and captions are encoded once, before training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from hv15.config.section import (
    LATENTS,
    PAST,
    PLACE,
    SPEED,
    TEXT,
    WATCHING,
    ComputeDtype,
    Conflict,
    Few,
    PathText,
    Section,
    TileSize,
    check_tiles,
    only_with,
)


class CacheSettings(Section):
    """Encoding of clips (VAE, image encoder) and captions (text encoders) into the cache."""

    directory: PathText = Field("cache", json_schema_extra=PLACE)
    """The folder of encoded items. Any number of projects can share one, even at the same time: items are named after
    their content, and `hv15 gc` of one project keeps what another needs."""

    scratch: str | None = Field(None, min_length=1, json_schema_extra=WATCHING)
    """A folder on a disk of the machine that trains, such as `$SLURM_TMPDIR` or /local/scratch, if `directory` is on a
    network disk. A training copies each item there when it first reads it, as long as a twentieth of that disk stays
    free, and reads the copy from then on; the next training there uses it, too. Variables are replaced on that machine;
    without them, or with a folder that cannot be written, the cache itself is read. The LoRA is the same."""

    shards: Few = Field(1, json_schema_extra=SPEED)
    """Number of independent jobs into which the encoding is split. Set it to the number of GPUs that encode at the same
    time, or a small multiple. Changing it does not encode anything again."""

    vae_sample_size: TileSize = Field(0, json_schema_extra=LATENTS)
    """Tile size in pixels for encoding. 0 = no tiles: exact, and best for training data. If the GPU does not have
    enough memory, 256 or 128 divide each frame into tiles and blend them, which changes the latents slightly."""

    vae_tile_overlap: float = Field(
        0.25, gt=0.0, lt=1.0, json_schema_extra=LATENTS | only_with(vae_sample_size=(128, 256))
    )
    """Overlap of neighbouring tiles, as a fraction of the tile size. Only with `vae_sample_size` 128 or 256."""

    vae_enable_patch_conv: bool = Field(False, json_schema_extra=SPEED)
    """Compute the VAE's large convolutions in pieces: the same results, less memory, slower. Try it before tiles."""

    fp8_vl: bool = Field(False, json_schema_extra=TEXT)
    """Keep Qwen's weights in fp8 (scaled in blocks of 64) while captions are encoded: 7 GiB instead of 12, with
    slightly rounded states."""

    text_encoder_cpu: bool = Field(False, json_schema_extra=TEXT)
    """Encode captions and prompts on the CPU in float32, if Qwen does not fit on the GPU: slow, and needs 25 GiB of CPU
    memory (8 GiB with `fp8_vl`)."""

    dtype: ComputeDtype = Field("auto", json_schema_extra=PAST)
    """Number format in which the encoders compute. `auto`: each encoder's official one on a GPU, float32 on a CPU."""

    latent_dtype: ComputeDtype = Field("auto", json_schema_extra=LATENTS)
    """Number format of stored latents. `auto`: float32 if the encoder computes in float32, else float16."""

    text_dtype: ComputeDtype = Field("auto", json_schema_extra=TEXT)
    """Number format of stored text states. `auto`: the format in which the text encoder computes."""

    latent_batch: Few = Field(1, json_schema_extra=SPEED)
    """Number of clips of equal size that are encoded together. More is faster for small clips, needs more memory, and
    may change the rounding of values; with 1, an item does not depend on the others in its batch."""

    text_batch: Few = Field(1, json_schema_extra=SPEED)
    """Number of captions that are encoded together; as for `latent_batch`."""

    workers: Few = Field(2, json_schema_extra=SPEED)
    """Number of threads that decode videos in advance. Increase it if the GPU waits for the CPU."""

    bad_clips: Literal["stop", "skip"] = Field("stop", json_schema_extra=SPEED)
    """What to do with files that cannot be used (damaged, too short, not a video). `stop`: encode all others, then stop
    and list them. `skip`: train without them; `hv15 report` lists them."""

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        yield from check_tiles(self.vae_sample_size, self.vae_tile_overlap)
