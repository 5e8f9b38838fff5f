"""What a GPU would punish, at full size on a GPU without data: mixed devices, waiting for the device, hidden copies.

The width, the tokens and the layers of one block are the real ones; three blocks stand for 54 (one test runs all), and
in the VAE one residual block for two or three.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from hv15.config import Settings
from hv15.lora import apply_lora
from hv15.models import DiT, DiTConfig
from hv15.models.dit_files import is_block_linear
from hv15.models.glyphs import GlyphConfig, GlyphEncoder, build_glyph_model
from hv15.models.ready import set_up
from hv15.models.text import TextConfig, TextEncoder, build_text_model
from hv15.models.vae import VAE, VAEConfig
from hv15.models.vae_decoding import narrow_chunks, side_by_side, window_chunks
from hv15.models.vae_pixels import encode_clips, to_bytes
from hv15.models.vae_windows import windows
from hv15.models.vision import VisionConfig
from hv15.models.weights.quantised import replace_linears
from hv15.plan.encoders import make_image_encoder
from hv15.plan.metered_steps import PassSize, empty_condition, examples
from hv15.sample.denoise import denoise
from hv15.train.networks import make_network
from hv15.train.run import make_optimizer_step
from tests.fake_gpu import Copies, FakeGPU
from tests.forked import FORKS

SIZE = PassSize(samples=1, latent=(4, 30, 52), text_tokens=200, i2v=False)  # 480p, 13 frames
SHALLOW = VAEConfig(layers_per_block=1)
"""The VAE with the published widths, and one residual block in each level."""
MOVES = {"train.examples.<lambda>", "train.examples.to", "models.condition.<lambda>"}
"""A batch comes to the device."""
SWAP = {"models.weights.transfers.begin"}
"""Blocks and kept activations."""
SIGMAS = SimpleNamespace(float=lambda: SimpleNamespace(tolist=lambda: [1.0, 0.0]))
"""A tensor of the host, which has data; under the fake GPU's mode none has."""
OPTIONS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "plain": ({}, set()),
    "kept activations": ({"gradient_checkpointing": False}, set()),
    "swap": ({"blocks_to_swap": 1}, SWAP),
    "fp8": ({"quantize": "fp8"}, set()),
    "int8": ({"quantize": "int8"}, set()),
    "split attention": ({"split_attn": True}, set()),
    "offload": ({"gradient_checkpointing_cpu_offload": True}, SWAP),
}

OF_TRAINING: dict[str, tuple[dict[str, Any], set[str]]] = {
    **OPTIONS,
    "moving average": ({"ema_decay": 0.9}, set()),
    **{kind: ({"network_type": kind}, set()) for kind in ("dora", "loha", "lokr")},
    "norms and rates": (
        {"scale_weight_norms": 0.1, "loraplus_lr_ratio": 4, "learning_rate_patterns": {"img_": "0.5x"}},
        set(),
    ),
}


SOME_AT_ONCE: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "t2v"),
    "swap, dora": ({"blocks_to_swap": 1, "network_type": "dora"}, "i2v"),
    "offload, fp8, lokr": (OPTIONS["offload"][0] | {"quantize": "fp8", "network_type": "lokr"}, "i2v"),
    "int8, split attention, loha": ({"quantize": "int8", "split_attn": True, "network_type": "loha"}, "t2v"),
    "kept activations, moving average, norms and rates": (
        OPTIONS["kept activations"][0] | {"ema_decay": 0.9} | OF_TRAINING["norms and rates"][0],
        "t2v",
    ),
}
"""All options in few steps, and the task; each by itself is slow."""


def settings(section: str, options: dict[str, Any]) -> Settings:
    base = {"models": {"source": "demo"}, "datasets": [{"video_directory": "clips"}]}
    train = {"optimizer_type": "AdamW", "network_dim": 16, "network_alpha": 16}
    return Settings.model_validate(
        {**base, "train": train} | {section: {**(train if section == "train" else {}), **options}}
    )


def ready(gpu: FakeGPU, section: Any, blocks: int = 3) -> DiT:
    """The real width on the fake GPU, set up as the settings want it."""
    with torch.device("meta"):
        dit = DiT(DiTConfig(num_blocks=blocks)).to(torch.bfloat16).requires_grad_(False)
    if section.quantize != "none":
        replace_linears(dit, section.quantize, is_block_linear)
    gpu.put(dit)
    with gpu:
        set_up(dit, section, gpu.device)
    return dit


def train_step(asked: Settings, size: PassSize, blocks: int = 3) -> set[str]:
    """An optimizer step of the real trainer; the copies between host and device."""
    gpu = FakeGPU()
    dit = ready(gpu, asked.train, blocks)
    with gpu:
        network = make_network(asked, dit)
        step = make_optimizer_step(asked.train, dit, network, gpu.device)
        with Copies() as copies:
            queued = step.run(examples(dit.config, size, 1), micro_batches=1, samples=size.samples, lr_factor=1.0)
        assert queued.tensor.device.type == "fakegpu"
    return copies.seen


@pytest.fixture(scope="module")
def fresh() -> Iterator[ProcessPoolExecutor]:
    """A process of its own: autograd has queues for those devices only that torch knows at the first backward pass."""
    with ProcessPoolExecutor(1, FORKS) as pool:
        yield pool


LONG_STEPS = ("swap, dora", "int8, split attention, loha")
"""Sampling swaps blocks, reads int8 and splits the attention by default."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG_STEPS else ()) for name in SOME_AT_ONCE]
)
def test_a_training_step(name: str, fresh: ProcessPoolExecutor):
    options, task = SOME_AT_ONCE[name]
    allowed = SWAP if {"swap", "offload"} & {*name.split(", ")} else set()
    blocks = 3 if allowed else 2
    copies = fresh.submit(train_step, settings("train", options), replace(SIZE, i2v=task == "i2v"), blocks).result()
    assert copies <= MOVES | allowed
    assert copies & MOVES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task"),
    [*((name, "t2v") for name in OF_TRAINING if name != "plain"), ("plain", "i2v"), ("swap", "i2v")],
)
def test_a_training_step_with_one_option(name: str, task: str, fresh: ProcessPoolExecutor):
    options, allowed = OF_TRAINING[name]
    copies = fresh.submit(train_step, settings("train", options), replace(SIZE, i2v=task == "i2v")).result()
    assert copies <= MOVES | allowed
    assert copies & MOVES


@pytest.mark.parametrize(
    ("names", "task"),
    [
        (("plain",), "t2v"),
        (("swap", "fp8"), "i2v"),
        (("int8", "split attention"), "t2v"),
        *(
            pytest.param((name,), task, marks=pytest.mark.slow)
            for name, task in (("swap", "t2v"), ("fp8", "t2v"), ("int8", "t2v"), ("split attention", "t2v"))
        ),
    ],
)
def test_sampling(names: tuple[str, ...], task: str, monkeypatch: pytest.MonkeyPatch):
    """Nothing is copied while it runs but blocks that are swapped; the one look at the result comes at its end."""
    options = dict(ChainMap(*(OPTIONS[name][0] for name in names)))
    allowed = {copy for name in names for copy in OPTIONS[name][1]}
    size, gpu = replace(SIZE, i2v=task == "i2v"), FakeGPU()
    dit = ready(gpu, settings("sample", options).sample)
    with gpu:
        cond = empty_condition(dit.config, size).to(gpu.device)
        noise = torch.zeros(1, 32, *size.latent).to(gpu.device)
        first = torch.zeros(1, 32, 1, *size.latent[1:]).to(gpu.device) if size.i2v else None
        looked: list[bool] = []
        monkeypatch.setattr(torch, "isfinite", lambda tensor: SimpleNamespace(all=lambda: not looked.append(True)))
        with Copies() as copies:
            sample = denoise(dit, noise, cond, cond, SIGMAS, 6.0, first)  # type: ignore[arg-type]
        assert sample.device.type == "fakegpu"
    assert copies.seen <= allowed
    assert looked == [True]


@pytest.mark.parametrize(
    ("tile_size", "patch_conv", "size"),
    [
        pytest.param(0, False, (480, 848), marks=pytest.mark.slow),
        (0, True, (240, 432)),
        pytest.param(0, True, (480, 848), marks=pytest.mark.slow),
        pytest.param(256, False, (192, 320), marks=pytest.mark.slow),
    ],
)
def test_encoding_and_decoding(tile_size: int, patch_conv: bool, size: tuple[int, int]):
    """As bytes in and bytes out: 480p, in strips, and two tiles."""
    gpu = FakeGPU()
    with torch.device("meta"):
        vae = VAE(SHALLOW).half().requires_grad_(False)
    vae.patch_conv = patch_conv
    gpu.put(vae)
    with gpu, torch.no_grad(), Copies() as copies:
        clips = gpu.empty(1, 5, *size, 3, dtype=torch.uint8)
        latents = encode_clips(vae, clips, tile_size, 0.25)
        assert to_bytes(vae.decode(latents, tile_size=tile_size, overlap=0.25)).shape == (1, 5, *size, 3)
    assert copies.seen == set()


@pytest.mark.slow
def test_seamless_tiles():
    """From latents to bytes: the narrow end, and each tile after it."""
    gpu = FakeGPU()
    with torch.device("meta"):
        vae = VAE(SHALLOW).half().requires_grad_(False)
    gpu.put(vae)
    with gpu, torch.no_grad(), Copies() as copies:
        latents = gpu.empty(1, 32, 2, 9, 20)
        narrow = torch.cat(list(narrow_chunks(vae, latents)), dim=2)
        all_windows = list(windows(vae.decoder, 9, 20, 16))
        tiles = [
            torch.cat(
                list(window_chunks(vae, each, lambda part, each=each: narrow[:, :, part][(..., *each.narrow)], 2)), 2
            )
            for each in all_windows
        ]
        assert to_bytes(side_by_side(tiles, all_windows)).shape == (1, 5, 144, 320, 3)
    assert copies.seen == set()


@pytest.fixture
def _lists_become_tensors_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.tensor does with a list for any device, said so that the fake one sees it."""
    make = torch.tensor
    monkeypatch.setattr(
        torch, "tensor", lambda data, device=None: make(data) if device is None else make(data).to(device)
    )


@pytest.mark.usefixtures("_lists_become_tensors_on_the_cpu")
@pytest.mark.parametrize("quantize", [False, True])
def test_texts(quantize: bool):
    """Qwen's layers at their real width: token ids come to the device, and nothing else."""
    gpu = FakeGPU()
    with torch.device("meta"):
        model = build_text_model(TextConfig(num_layers=2)).half().requires_grad_(False)
        model.rotary_emb = type(model.rotary_emb)(model.config)
    if quantize:
        replace_linears(model, "fp8", lambda name: name.startswith("layers."))
    gpu.put(model)
    tokenizer = SimpleNamespace(pad_id=0, crop_start=108)
    with gpu, torch.no_grad(), Copies() as copies:
        states = TextEncoder(model, tokenizer)._encode_batch([[1] * 300, [1] * 200])  # type: ignore[arg-type]
    assert [tuple(each.shape) for each in states] == [(192, 3584), (92, 3584)]
    assert {each.device for each in states} == {gpu.device}
    assert copies.seen <= {"models.text._encode_batch"}


@pytest.mark.usefixtures("_lists_become_tensors_on_the_cpu")
def test_quoted_texts():
    """ByT5 of Glyph-SDXL-v2."""
    gpu = FakeGPU()
    with torch.device("meta"):
        model = build_glyph_model(GlyphConfig()).requires_grad_(False)
    gpu.put(model)
    with gpu, torch.no_grad(), Copies() as copies:
        states = GlyphEncoder(model)._encode_batch([[1] * 40, [1] * 20])
    assert [tuple(each.shape) for each in states] == [(40, 1472), (20, 1472)]
    assert copies.seen <= {"models.glyphs._encode_batch"}


def test_first_images():
    """SigLIP: pixels come to the device, and nothing else."""
    gpu, config = FakeGPU(), VisionConfig(num_layers=3)
    encoder = make_image_encoder(config, torch.float16)
    gpu.put(encoder.model)
    with gpu, torch.no_grad(), Copies() as copies:
        states = encoder.model(pixel_values=torch.zeros(1, 3, 384, 384).to(gpu.device, torch.float16)).last_hidden_state
    assert states.shape == (1, 729, 1152)
    assert states.device == gpu.device
    assert copies.seen <= {"?"}  # the test's own


def test_the_fake_gpu_sees_what_it_is_for():
    """Mixed devices and a look at a value raise; a copy is seen."""
    gpu = FakeGPU()
    with gpu:
        on_gpu, on_cpu = gpu.empty(2, 2), torch.zeros(2, 2)
        with pytest.raises(Exception, match="device"):
            on_gpu @ on_cpu
        with pytest.raises(Exception, match=r"."):
            bool(on_gpu.sum() > 0)
        with Copies() as copies:
            on_cpu.to(gpu.device)
        assert copies.seen == {"?"}


@pytest.mark.slow
def test_all_blocks_of_the_real_model(fresh: ProcessPoolExecutor):
    copies = fresh.submit(train_step, settings("train", {"blocks_to_swap": 51}), SIZE, blocks=54).result()
    assert copies <= MOVES | SWAP


@pytest.mark.parametrize("magnitude", ["dora_scale", "base_dora_scale", None])
@pytest.mark.parametrize("kind", ["lora", "loha", "lokr"])
def test_a_lora_of_any_kind_beside_the_weights(kind: str, magnitude: str | None):
    """Its tensors come to the activations' device once, and stay there."""
    gpu, name = FakeGPU(), "lycoris_double_blocks_0_img_attn_q"
    shapes = {
        "lora": {"lora_down.weight": (8, 2048), "lora_up.weight": (2048, 8)},
        "loha": {f"hada_w{i}_{side}": shape for i in (1, 2) for side, shape in (("a", (2048, 8)), ("b", (8, 2048)))},
        "lokr": {"lokr_w1": (8, 8), "lokr_w2_a": (256, 8), "lokr_w2_b": (8, 256)},
    }[kind] | ({magnitude: (2048, 1)} if magnitude else {})
    file = {
        f"{name}.{part}": FakeTensor(gpu.mode, torch.empty(shape, device="meta"), torch.device("cpu"))
        for part, shape in shapes.items()
    }
    with torch.device("meta"):
        layer = torch.nn.Linear(2048, 2048, dtype=torch.bfloat16).requires_grad_(False)
    blocks = torch.nn.ModuleList([torch.nn.ModuleDict({"img_attn_q": gpu.put(layer)})])
    assert apply_lora(torch.nn.ModuleDict({"double_blocks": blocks}), file) == 1
    with gpu:
        x = gpu.empty(1, 5, 2048)
        with Copies() as first:
            layer(x)
        with Copies() as later:
            output = layer(x)
    assert (output.device.type, output.dtype) == ("fakegpu", torch.bfloat16)
    assert first.seen
    assert not later.seen
