"""`cache:` how clips and captions are encoded once, before training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hv15.config.section import (
    LATENTS,
    PLACE,
    SPEED,
    TEXT,
    ComputeDtype,
    Few,
    PathText,
    Section,
    TileSize,
    check_tiles,
    only_with,
    raise_problems,
)


class CacheSettings(Section):
    """Encoding of clips (VAE, image encoder) and captions (text encoders) into the store."""

    directory: PathText = Field("cache", json_schema_extra=PLACE)
    """The folder of the store. Any number of projects may share one, at the same time: items are named by their
    content, and `hv15 gc` of one project keeps what another needs."""

    shards: Few = Field(1, json_schema_extra=SPEED)
    """Into how many independent jobs the encoding is split. Set it to the number of GPUs (or a small multiple) that
    may encode at the same time. Changing it encodes nothing again."""

    vae_sample_size: TileSize = Field(0, json_schema_extra=LATENTS)
    """Tile size in pixels for encoding. 0 = no tiles: exact, and the best for training data. When the GPU has not
    enough memory, 256 or 128 cut the picture into tiles that are blended, which changes the latents slightly."""

    vae_tile_overlap: float = Field(
        0.25, gt=0.0, lt=1.0, json_schema_extra=LATENTS | only_with(vae_sample_size=(128, 256))
    )
    """How far neighbouring tiles overlap, as a part of the tile size. Only with `vae_sample_size` 128 or 256."""

    vae_enable_patch_conv: bool = Field(False, json_schema_extra=SPEED)
    """Compute the VAE's large convolutions in pieces: the same numbers, less memory, slower. Try it before tiles."""

    fp8_vl: bool = Field(False, json_schema_extra=TEXT)
    """Hold Qwen's weights in fp8 (scaled by blocks of 64) while captions are encoded: 7 GiB instead of 12, with
    slightly rounded states."""

    text_encoder_cpu: bool = Field(False, json_schema_extra=TEXT)
    """Encode captions and prompts on the CPU in float32, for a GPU that cannot hold Qwen: 25 GiB of the machine's
    memory (8 GiB with `fp8_vl`), and slow."""

    dtype: ComputeDtype = "auto"
    """Number format in which the encoders compute. `auto`: each encoder's official one on a GPU, float32 on a CPU."""

    latent_dtype: ComputeDtype = Field("auto", json_schema_extra=LATENTS)
    """Number format of stored latents. `auto`: float32 when the encoder computed in it, else float16."""

    text_dtype: ComputeDtype = Field("auto", json_schema_extra=TEXT)
    """Number format of stored text states. `auto`: as the text encoder computed."""

    latent_batch: Few = Field(1, json_schema_extra=SPEED)
    """Clips of equal size encoded together. More is faster for small clips, needs more memory, and may change the last
    bit of a value; with 1 an item does not depend on what it is encoded with."""

    text_batch: Few = Field(1, json_schema_extra=SPEED)
    """Captions encoded together; as for `latent_batch`."""

    workers: Few = Field(2, json_schema_extra=SPEED)
    """Threads that decode videos ahead of the encoder. Raise it when the GPU waits for the CPU."""

    bad_clips: Literal["stop", "skip"] = Field("stop", json_schema_extra=SPEED)
    """What to do about files that cannot be used (damaged, too short, no video in them). `stop`: encode all others,
    then stop with the list of them. `skip`: train without them; `hv15 report` lists them."""

    @model_validator(mode="after")
    def _tiles_fit(self) -> CacheSettings:
        raise_problems(check_tiles(self.vae_sample_size, self.vae_tile_overlap))
        return self
