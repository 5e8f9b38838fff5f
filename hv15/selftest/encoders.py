"""The VAE, Qwen, ByT5 and SigLIP: their numbers against the CPU, and the time of full-size work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hv15.models.glyphs import build_glyph_model
from hv15.models.text import TextEncoder, build_text_model
from hv15.models.vae import VAE
from hv15.models.vae_decoding import Tiling
from hv15.models.vae_pixels import encode_clips, to_bytes
from hv15.models.vision import build_vision_model
from hv15.out_of_memory import StageName
from hv15.plan.cost import Cost
from hv15.plan.decoding import decoding
from hv15.plan.encoders import PromptsOfLength, encoding, make_vae, text_encoding
from hv15.plan.workload import ClipBatch
from hv15.records.selftest import Measured
from hv15.selftest.bounds import bound, doubled, judged
from hv15.selftest.checks import MachineCheck
from hv15.selftest.rounded import HALVES, RoundedProducts
from hv15.selftest.sizes import NUMBERS_GLYPHS, NUMBERS_TEXT, NUMBERS_VAE, NUMBERS_VISION, Sizes, VideoSize
from hv15.selftest.stand import CPU, Network, Skipped, Stand, moved
from hv15.selftest.steps import measured_step, planned_cost

VAE_ROUNDINGS = 150
"""Norms, activations, convolutions and sums of one coder of `NUMBERS_VAE`, one after the other."""
LAYER_ROUNDINGS = 16
"""Of a layer of a text or image encoder."""


def number_checks(stand: Stand) -> list[MachineCheck]:
    """The checks of numbers."""
    return [
        MachineCheck("numbers", "VAE: encode and decode", partial(vae_numbers, stand), 3),
        MachineCheck("numbers", "VAE: gradients", partial(vae_gradients, stand), 3),
        MachineCheck("numbers", "VAE: strips of rows", partial(vae_strips, stand), 2),
        MachineCheck("numbers", "Qwen: forward and backward", partial(text_numbers, stand), 3, needs=("transformers",)),
        MachineCheck(
            "numbers", "SigLIP: forward and backward", partial(vision_numbers, stand), 3, needs=("transformers",)
        ),
        MachineCheck(
            "numbers", "ByT5: forward and backward", partial(glyph_numbers, stand), 3, needs=("transformers",)
        ),
    ]


def full_size_checks(stand: Stand) -> list[MachineCheck]:
    """The checks of full-size work."""
    sizes = stand.sizes
    name = f"Qwen, {sizes.text.num_layers - 2} layers, {sizes.captions} captions"
    return [
        MachineCheck("full size", name, partial(encode_texts, stand), 12, needs=("transformers",)),
        *(
            MachineCheck("full size", f"VAE encode, {clip}", partial(encode_clip, stand, clip), 8)
            for clip in sizes.coded
        ),
        *(
            MachineCheck("full size", f"VAE decode, {clip}", partial(decode_clip, stand, clip), 10)
            for clip in sizes.coded
        ),
    ]


@dataclass(frozen=True)
class EncoderWork:
    """Work of an encoder, as the planner runs it without data."""

    sizes: Sizes
    stage: StageName
    dtype: torch.dtype
    clip: VideoSize | None = None

    def plan(self) -> Cost:
        """Return what the work takes."""
        if self.clip is None:
            return text_encoding(self.sizes.text, self.dtype, self.sizes.text_tokens, self.sizes.captions)
        vae = make_vae(self.sizes.vae, self.dtype, patch_conv=False)
        if self.stage == "decode":
            return decoding(vae, self.clip.latent, Tiling())
        return encoding(vae, None, ClipBatch(1, self.clip.frames, self.clip.height, self.clip.width))


def planned_works(stand: Stand) -> list[EncoderWork]:
    """What the planner is asked for, in the order of the checks."""
    works = [EncoderWork(stand.sizes, "encode texts", stand.encoder_dtype)]
    stages: tuple[StageName, StageName] = ("encode latents", "decode")
    return works + [
        EncoderWork(stand.sizes, stage, stand.encoder_dtype, clip) for stage in stages for clip in stand.sizes.coded
    ]


Run = Callable[[Network, torch.device, torch.dtype], tuple[Tensor, ...]]
"""Uses a network in a dtype on a device: what comes out, of any shapes."""


def _compared(
    stand: Stand, build: Callable[[], Network], run: Run[Network], roundings: int, dtype: torch.dtype | None = None
) -> Measured:
    """A network on the device, in a dtype, by default the encoders', against the same in fp32 on the CPU.

    Args:
        roundings: as for `bound`.
    """
    dtype = dtype or stand.encoder_dtype
    found = run(moved(_seeded(build, dtype), stand.device), stand.device, dtype)
    if not stand.has_data:
        return Measured()
    exact = run(moved(_seeded(build, dtype), CPU, torch.float32), CPU, torch.float32)
    spreads: list[float | None] = [None] * len(exact)
    if dtype in HALVES:
        with RoundedProducts():
            rounded = run(_seeded(build, dtype), CPU, dtype)
        spreads = [stand.error(near, wanted) for near, wanted in zip(rounded, exact, strict=True)]
    errors = (stand.error(each, wanted) for each, wanted in zip(found, exact, strict=True))
    return judged((error, bound(dtype, spread, roundings)) for error, spread in zip(errors, spreads, strict=True))


def _seeded(build: Callable[[], Network], dtype: torch.dtype) -> Network:
    """A frozen network on the CPU, with the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return moved(build().requires_grad_(False).eval(), CPU, dtype)


def _pixels(stand: Stand) -> Tensor:
    """[1, 3, 9, 64, 48], exact in the encoders' dtype, on the CPU."""
    made = torch.rand(1, 3, 9, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return made.to(stand.encoder_dtype).float()


def _encoded(model: VAE, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return model.encode(pixels)


def vae_numbers(stand: Stand) -> Measured:
    """Latents of a video, and the video of other latents, against fp32 on the CPU."""
    latents = torch.randn(1, NUMBERS_VAE.latent_channels, 3, 4, 3, generator=torch.Generator().manual_seed(1))
    latents = latents.to(stand.encoder_dtype)

    def run(model: VAE, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            decoded = model.decode(latents.to(device, dtype))
        return _encoded(model, _pixels(stand).to(device, dtype)), decoded

    return _compared(stand, _small_vae, run, VAE_ROUNDINGS)


def vae_gradients(stand: Stand) -> Measured:
    """The gradient of pixels through the encoder against fp32 on the CPU."""

    def run(model: VAE, device: torch.device, dtype: torch.dtype) -> tuple[Tensor]:
        pixels = _pixels(stand).to(device, dtype).requires_grad_()
        return (_gradient(stand, model.encode(pixels), pixels),)

    return _compared(stand, _small_vae, run, 3 * VAE_ROUNDINGS)


def vae_strips(stand: Stand) -> Measured:
    """With `vae_enable_patch_conv`, and without."""
    results: list[Tensor] = []

    def run(model: VAE, device: torch.device, dtype: torch.dtype) -> tuple[Tensor]:
        pixels = _pixels(stand).to(device, dtype)
        whole = _encoded(model, pixels)
        if not results:  # the first is the device's
            model.patch_conv = True
            results.extend([_encoded(model, pixels), whole])
        return (whole,)

    most = _compared(stand, _small_vae, run, VAE_ROUNDINGS).bound
    return Measured(error=stand.error(results[0], results[1]), bound=doubled(most))


def _small_vae() -> VAE:
    return VAE(NUMBERS_VAE)


def text_numbers(stand: Stand) -> Measured:
    """States of two prompts, and the gradient of the token embeddings, against fp32 on the CPU."""

    def run(model: nn.Module, device: torch.device, _: torch.dtype) -> tuple[Tensor, Tensor]:
        weight = model.get_parameter("embed_tokens.weight").requires_grad_()
        ids = (torch.arange(40) * 7 % NUMBERS_TEXT.vocab_size).view(2, 20).to(device)
        states = model(input_ids=ids, use_cache=False).last_hidden_state
        return states, _gradient(stand, states, weight)

    return _of_layers(stand, lambda: build_text_model(NUMBERS_TEXT), run, NUMBERS_TEXT.num_layers - 2)


def vision_numbers(stand: Stand) -> Measured:
    """States of an image, and the gradient of its pixels, against fp32 on the CPU."""
    side = NUMBERS_VISION.image_size

    def run(model: nn.Module, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        pixels = pixels.to(stand.encoder_dtype).to(device, dtype).requires_grad_()
        states = model(pixel_values=pixels).last_hidden_state
        return states, _gradient(stand, states, pixels)

    return _of_layers(stand, lambda: build_vision_model(NUMBERS_VISION), run, NUMBERS_VISION.num_layers)


def glyph_numbers(stand: Stand) -> Measured:
    """States of two quoted texts of unequal lengths, and the gradient of the token embeddings; both in fp32."""

    def run(model: nn.Module, device: torch.device, _: torch.dtype) -> tuple[Tensor, Tensor]:
        weight = model.get_parameter("embed_tokens.weight").requires_grad_()
        ids = (torch.arange(40) * 7 % NUMBERS_GLYPHS.vocab_size).view(2, 20)
        mask = torch.arange(20) < torch.tensor([[20], [12]])
        states = model(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        states = torch.cat([states[0], states[1, :12]])
        return states, _gradient(stand, states, weight)

    layers = NUMBERS_GLYPHS.num_layers
    return _of_layers(stand, lambda: build_glyph_model(NUMBERS_GLYPHS), run, layers, torch.float32)


def _of_layers(
    stand: Stand,
    build: Callable[[], nn.Module],
    run: Run[nn.Module],
    layers: int,
    dtype: torch.dtype | None = None,
) -> Measured:
    """A text or image encoder's output and gradient; as `_compared`."""
    if not stand.has_data:
        raise Skipped("the device has no data")
    return _compared(stand, build, run, 3 * (LAYER_ROUNDINGS * layers + 4), dtype)


def _gradient(stand: Stand, out: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of a sum of an output's numbers with random weights, exact in the encoders' dtype; as the leaf.

    (That of the output's norm would be nothing but rounding behind a layer norm, which makes the norm constant.)
    """
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(stand.encoder_dtype)
    return torch.autograd.grad(out, leaf, weights.to(out.device, out.dtype))[0]


def encode_texts(stand: Stand) -> Measured:
    """The layers of Qwen2.5-VL that are used, on a batch of captions."""
    sizes, dtype = stand.sizes, stand.encoder_dtype
    cost = planned_cost(stand, work := EncoderWork(sizes, "encode texts", dtype))
    model = stand.full_size("Qwen", lambda: _full_text_model(stand))
    encoder = TextEncoder(model, PromptsOfLength(sizes.text_tokens))
    run = partial(encoder.encode, [""] * sizes.captions)
    return measured_step(stand, work.stage, dtype, cost, run, model)


def _full_text_model(stand: Stand) -> nn.Module:
    model = stand.random(lambda: build_text_model(stand.sizes.text), stand.encoder_dtype)
    model.rotary_emb = type(model.rotary_emb)(model.config).to(stand.device)  # a table, as in loading
    return model


def encode_clip(stand: Stand, clip: VideoSize) -> Measured:
    """Bytes to latents."""
    cost = planned_cost(stand, work := EncoderWork(stand.sizes, "encode latents", stand.encoder_dtype, clip))
    vae = _full_vae(stand)
    shape = (1, clip.frames, clip.height, clip.width, 3)
    frames = torch.zeros(shape, dtype=torch.uint8, device=stand.device).random_(0, 255)

    def encode() -> Tensor:
        with torch.no_grad():
            return encode_clips(vae, frames, 0, 0.0)

    return measured_step(stand, work.stage, work.dtype, cost, encode, vae)


def decode_clip(stand: Stand, clip: VideoSize) -> Measured:
    """Latents to bytes, as they go to a file: a chunk of frames at a time."""
    cost = planned_cost(stand, work := EncoderWork(stand.sizes, "decode", stand.encoder_dtype, clip))
    vae = _full_vae(stand)
    latents = stand.randn(1, stand.sizes.vae.latent_channels, *clip.latent, dtype=torch.float32)

    def decode() -> None:
        with torch.no_grad():
            for pixels in vae.decode_chunks(latents):
                to_bytes(pixels)

    return measured_step(stand, work.stage, work.dtype, cost, decode, vae)


def _full_vae(stand: Stand) -> VAE:
    return stand.full_size("VAE", lambda: stand.random(lambda: VAE(stand.sizes.vae), stand.encoder_dtype))
