"""The VAE of HunyuanVideo 1.5: video to latents and back, 16x smaller in space and 4x in time, causal in time.

- Clips are processed in chunks of frames, so memory does not grow with the length of a clip. The network is causal, so
  the numbers are the same. With gradients, a clip is its first frame and one chunk.
- With `patch_conv`, layers work in strips of rows, for when even one chunk needs too much memory.
- Norms are in fp32, attention is by frames without a mask, spatial tiles are as in the official implementation.
- Latents are not scaled here (see `latents.scale`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from hv15.atomic import write_json
from hv15.models.vae_blocks import Stream, chunks
from hv15.models.vae_coders import Decoder, Encoder, VAEConfig
from hv15.models.vae_layouts import VAELayout, config_json, detect_vae_layout, name_in, read_config
from hv15.models.vae_tiling import TileGrid, run_tiled
from hv15.models.weights.checkpoint import check_keys, load_into, open_checkpoint
from hv15.models.weights.module import Module
from hv15.models.weights.writer import write_checkpoint

__all__ = ["VAE", "VAEConfig", "load_vae", "save_vae"]

_CHUNK_BYTES = {"cpu": 16 << 20}
_CHUNK_BYTES_ELSEWHERE = 256 << 20
"""Intended size of the widest activation of a chunk. CPU: small enough for the cache and for the allocator to reuse
(above 32 MiB, glibc asks the system for fresh pages each time). GPU: large enough to keep each kernel busy."""
_STRIP_BYTES = {"cpu": 4 << 20}
_STRIP_BYTES_ELSEWHERE = 64 << 20
"""Intended size of a strip with `patch_conv`; a norm and a convolution need several times as much."""


class VAE(Module):
    """Encoder and decoder with the official checkpoint's names."""

    patch_conv = False
    """Work in strips of rows and the shortest chunks: less memory, the same numbers (`vae_enable_patch_conv`)."""

    def __init__(self, config: VAEConfig | None = None) -> None:
        super().__init__()
        self.config = config or VAEConfig()
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, to which inputs are cast, and of the results."""
        return self.encoder.conv_in.conv.weight.dtype

    def moments(self, pixels: Tensor, tile_size: int = 0, overlap: float = 0.0) -> Tensor:
        """Compute mean and log variance of the latents' distribution.

        Args:
            pixels: [B, 3, F, H, W] in [-1, 1]; F = 4k+1, H and W multiples of 16.
            tile_size: side of the spatial tiles in pixels; 0 = untiled. Tiles are used when H or W exceeds it.
            overlap: the fraction of a tile that overlaps its neighbour.

        Returns:
            [B, 2*C, F', H/16, W/16], F' = (F-1)//4+1: C channels of means, C of log variances clamped to [-30, 20].

        Raises:
            ValueError: the frames, height, width or tiles are not such multiples.
        """
        space, time = self.config.ffactor_spatial, self.config.ffactor_temporal
        _check_shape(pixels, self.config.in_channels, "pixels")
        frames, height, width = pixels.shape[2:]
        if frames % time != 1 % time or height % space or width % space:
            raise ValueError(
                f"pixels of {frames} frames, {height}x{width} (HxW): expected {time}k+1 frames and multiples of {space}"
            )
        if tile_size and max(height, width) > tile_size:
            stride, tile, step = self._tile_sizes(tile_size, overlap)
            grid = TileGrid(height, width, tile_size, stride, blend=tile - step, keep=step)
            moments = run_tiled(self._encode_chunks, pixels, grid)
        else:
            moments = self._encode_chunks(pixels)
        mean, log_variance = moments.chunk(2, dim=1)
        return torch.cat([mean, log_variance.clamp(-30, 20)], dim=1)

    def encode(self, pixels: Tensor, tile_size: int = 0, overlap: float = 0.0) -> Tensor:
        """Compute the unscaled posterior mode of pixels [B, 3, F, H, W]: [B, C, F', H/16, W/16]; see `moments`."""
        return self.moments(pixels, tile_size, overlap)[:, : self.config.latent_channels].contiguous()

    def decode(self, latents: Tensor, tile_size: int = 0, overlap: float = 0.0) -> Tensor:
        """Decode unscaled latents [B, C, F', h, w] to pixels [B, 3, 4*(F'-1)+1, 16*h, 16*w], about [-1, 1], unclamped.

        `tile_size` and `overlap` as in `moments`, in pixels. `vae_decoding.decoded_parts` gives the same numbers part
        by part.
        """
        _check_shape(latents, self.config.latent_channels, "latents")
        grid = self.decoding_grid(latents.shape[-2], latents.shape[-1], tile_size, overlap)
        return self._decode_chunks(latents) if grid is None else run_tiled(self._decode_chunks, latents, grid)

    def decoding_grid(self, height: int, width: int, tile_size: int, overlap: float) -> TileGrid | None:
        """Return the tiles in which latents of this size are decoded; None: as a whole.

        Raises:
            ValueError: the tiles do not begin at latents.
        """
        if not tile_size or max(height, width) * self.config.ffactor_spatial <= tile_size:
            return None
        stride, tile, step = self._tile_sizes(tile_size, overlap)
        return TileGrid(height, width, tile, step, blend=tile_size - stride, keep=stride)

    def decode_chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """Decode without tiles: yield the pixels [B, 3, f, 16*h, 16*w] of the first frame, then of f more at a time.

        Nothing of what was yielded is kept. Of earlier frames there remain two for each convolution, and keys and
        values of the attention for each latent.
        """
        _check_shape(latents, self.config.latent_channels, "latents")
        height, width = (size * self.config.ffactor_spatial for size in latents.shape[-2:])
        return self._chunk_by_chunk(self.decoder, latents.to(self.dtype), self.chunk_groups(height, width))

    def _tile_sizes(self, tile_size: int, overlap: float) -> tuple[int, int, int]:
        """Return the stride in pixels, and the tile and stride in latents."""
        space = self.config.ffactor_spatial
        stride = int(tile_size * (1 - overlap))
        if tile_size % space or stride % space or stride <= 0:
            raise ValueError(
                f"tiles of {tile_size} pixels with overlap {overlap:g} start every {stride} pixels: "
                f"both must be multiples of {space}"
            )
        return stride, tile_size // space, stride // space

    def _encode_chunks(self, pixels: Tensor) -> Tensor:
        groups, time = self.chunk_groups(*pixels.shape[-2:]), self.config.ffactor_temporal
        results = self._chunk_by_chunk(self.encoder, pixels.to(self.dtype), groups * time)
        return _joined(results, (pixels.shape[2] - 1) // time + 1)

    def _decode_chunks(self, latents: Tensor) -> Tensor:
        return _joined(self.decode_chunks(latents), (latents.shape[2] - 1) * self.config.ffactor_temporal + 1)

    def chunk_groups(self, height: int, width: int) -> int:
        """Return the number of latent frames in a chunk, for frames of this size in pixels."""
        weight = self.encoder.conv_in.conv.weight
        wanted = _CHUNK_BYTES.get(weight.device.type, _CHUNK_BYTES_ELSEWHERE)
        frame = self.config.block_out_channels[0] * height * width * weight.element_size()
        if self.patch_conv:
            return 1
        return max(1, wanted // (frame * self.config.ffactor_temporal))

    def _chunk_by_chunk(self, network: Encoder | Decoder, x: Tensor, frames: int) -> Iterator[Tensor]:
        """Yield what the network makes of the first frame of x [B, C, F, H, W], then of `frames` frames at a time."""
        if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in network.parameters())):
            stream, frames = Stream(tracked=True), x.shape[2]
        else:
            stream = self.new_stream()
        for part in chunks(x, frames, stream):
            yield network(part, stream)

    def new_stream(self) -> Stream:
        """Return the state in which a network without gradients begins a clip."""
        stream = Stream(tracked=False)
        if self.patch_conv:
            where = self.encoder.conv_in.conv.weight.device.type
            stream.strip_bytes = _STRIP_BYTES.get(where, _STRIP_BYTES_ELSEWHERE)
        return stream


def _joined(results: Iterator[Tensor], length: int) -> Tensor:
    """Join results [B, C, f, H, W] along the frames, of which there are `length`."""
    out: Tensor | None = None
    end = 0
    for result in results:
        if result.shape[2] == length:
            return result
        if result.requires_grad:
            return torch.cat([result, *results], dim=2)
        if out is None:
            out = result.new_empty(*result.shape[:2], length, *result.shape[3:])
        end += result.shape[2]
        out[:, :, end - result.shape[2] : end] = result
        del result
    assert out is not None
    return out


def _check_shape(x: Tensor, channels: int, name: str) -> None:
    if x.ndim != 5 or x.shape[1] != channels or 0 in x.shape:
        raise ValueError(f"{name} of shape {list(x.shape)}: expected [B, {channels}, F, H, W]")


def load_vae(
    path: Path | str,
    *,
    config: VAEConfig | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    patch_conv: bool = False,
) -> VAE:
    """Load a VAE, frozen and in eval mode, tensor by tensor.

    Args:
        path: a .safetensors file, or a folder that holds it (the vae/ of a download); official or diffusers layout.
        config: sizes; None reads them from the tensors.
        dtype: None keeps the dtype of the file.
        patch_conv: see `VAE.patch_conv`.

    Raises:
        UserError: the file is missing, truncated, not safetensors or of another model; tensors are missing, unexpected
            or NaN.
    """
    checkpoint = open_checkpoint(Path(path))
    layout = detect_vae_layout(checkpoint)
    with torch.device("meta"):
        vae = VAE(config or read_config(checkpoint, layout))
    names = {key: name_in(layout, key) for key in vae.state_dict()}
    check_keys(names.values(), checkpoint, checkpoint.path, what=f"VAE ({layout} layout)")
    tensors = ((key, checkpoint.tensor(name)) for key, name in names.items())
    load_into(vae, tensors, dtype=dtype, device=device, where=checkpoint.path)
    vae.patch_conv = patch_conv
    return vae


def save_vae(vae: VAE, path: Path | str, *, layout: VAELayout = "official", dtype: torch.dtype | None = None) -> None:
    """Write the weights to a .safetensors file, or, with any other name, to a folder together with config.json.

    Args:
        dtype: None keeps the dtype of the weights.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    file = path if path.suffix == ".safetensors" else path / "diffusion_pytorch_model.safetensors"
    tensors: dict[str, Tensor] = {name_in(layout, key): value for key, value in vae.state_dict().items()}
    write_checkpoint(
        file,
        {name: value.to("meta", dtype or value.dtype) for name, value in tensors.items()},
        lambda name: tensors[name].to("cpu", dtype or tensors[name].dtype),
        {"format": "pt"},
    )
    if file != path:
        write_json(path / "config.json", config_json(vae.config, layout))
