"""The demo's model files: the real layouts, sane scales, equal bytes, and something for a LoRA to learn."""

import re

import numpy as np
import pytest
import torch

from hv15.demo.layout import DEMO_FILES, DEMO_OUTPUTS
from hv15.demo.models import make_demo_models
from hv15.lora import LoRANetwork
from hv15.models import (
    Condition,
    load_dit,
    load_glyph_encoder,
    load_image_encoder,
    load_text_encoder,
    load_vae,
)
from hv15.models.dit_sizes import layout_of
from hv15.models.templates import USER_MARKER
from hv15.models.weights.checkpoint import open_checkpoint
from tests.models.encoder_files import full_size


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return make_demo_models(tmp_path_factory.mktemp("models") / "demo")


@pytest.fixture(scope="module")
def condition(paths):
    """The states of a prompt with quoted text, and of an image."""
    text = load_text_encoder(paths["text_encoder"], paths["tokenizer"], dtype=torch.float32)
    glyphs = load_glyph_encoder(paths["glyph_encoder"])
    vision = load_image_encoder(paths["image_encoder"], dtype=torch.float32)

    def encode(prompt, image=None):
        (states,), (letters,) = text.encode([prompt]), glyphs.encode([prompt])
        return Condition(
            text=states[None],
            text_lengths=[len(states)],
            glyphs=letters[None],
            glyph_lengths=[len(letters)],
            vision=None if image is None else vision.encode([image]),
        )

    return encode


def test_every_planned_file_is_made(paths):
    root = paths["dit"].parents[1]
    assert paths.keys() == DEMO_FILES.keys()
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == set(DEMO_OUTPUTS)
    assert sum((root / name).stat().st_size for name in DEMO_OUTPUTS) < 25_000_000


@pytest.mark.slow
def test_equal_seeds_give_equal_bytes(paths, tmp_path):
    again = make_demo_models(tmp_path / "again")
    root = paths["dit"].parent
    for file in (file for file in root.rglob("*") if file.is_file()):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(root)).read_bytes(), file.name
    other = make_demo_models(tmp_path / "other", seed=1)
    assert other["dit"].read_bytes() != again["dit"].read_bytes()


@pytest.mark.parametrize(
    ("role", "keys", "left_out"),
    [
        ("text_encoder", "keys_comfy_qwen25vl", "visual."),
        ("glyph_encoder", "keys_byt5_glyphxl", None),
        ("image_encoder", "keys_sigclip_vision_patch14_384", None),
    ],
)
def test_names_are_those_of_the_real_files(paths, role, keys, left_out):
    """Every tensor of the real file is there; only the numbers of layers differ."""
    real, ours = full_size(keys).keys(), open_checkpoint(paths[role]).keys()
    wanted = {_pattern(key) for key in real if left_out is None or not key.startswith(left_out)}
    assert {_pattern(key) for key in ours} == wanted


def _pattern(key):
    """The name with later layers written as the second: ByT5's first one has a tensor more."""
    return re.sub(r"(layers|block)\.(\d+)\.", lambda match: f"{match[1]}.{min(int(match[2]), 1)}.", key)


def test_dit_is_in_the_official_layout(paths):
    assert layout_of(open_checkpoint(paths["dit"]))[0] == "official"


def test_states_have_the_scale_of_a_norm(condition):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    states = condition('a sign that says "GO"', image)
    for tensor in (states.text, states.glyphs, states.vision):
        assert 0.5 < tensor.std() < 2
    assert not torch.equal(states.text[0, :1], condition("another").text[0, :1])


def test_constant_part_of_the_template_is_found(paths):
    tokenizer = load_text_encoder(paths["text_encoder"], paths["tokenizer"], dtype=torch.float32).tokenizer
    (row,) = tokenizer.rows(["a red circle"])
    decode = tokenizer.tokenizer.decode
    assert decode(row[: tokenizer.crop_start], skip_special_tokens=False).endswith(USER_MARKER)
    assert decode(row[tokenizer.crop_start :], skip_special_tokens=False).startswith("a red circle<|im_end|>")


def test_latents_and_pixels_are_in_range(paths):
    vae = load_vae(paths["vae"], dtype=torch.float32)
    colours = torch.randn(4, 3, 2, 3, 3, generator=torch.Generator().manual_seed(9))
    clips = torch.nn.functional.interpolate(colours, size=(5, 48, 64), mode="trilinear").tanh()
    with torch.no_grad():
        latents = vae.encode(clips)
        pixels = vae.decode(latents)
    assert latents.shape == (4, 32, 2, 3, 4)
    assert 0.6 < latents.std() < 1.7
    assert (latents[0] - latents[1]).std() > 0.4  # clips of other colours have other latents
    assert pixels.shape == clips.shape
    assert 0.2 < pixels.std() < 0.6
    assert (pixels.abs() > 1).float().mean() < 0.05


def test_velocity_depends_on_everything(paths, condition):
    dit = load_dit(paths["dit"], dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 65, 2, 4, 4, generator=generator)
    time = torch.tensor([700.0])
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    prompt = 'a sign "GO"'
    with torch.no_grad():
        velocity = dit(x, time, condition(prompt))
        others = {
            "latents": dit(torch.randn(x.shape, generator=generator), time, condition(prompt)),
            "time": dit(x, torch.tensor([300.0]), condition(prompt)),
            "text": dit(x, time, condition('a blue sign "GO"')),
            "glyphs": dit(x, time, condition('a sign "NO"')),
            "vision": dit(x, time, condition(prompt, image)),
        }
    assert 0.5 < velocity.std() < 2
    for name, other in others.items():
        assert (other - velocity).std() > 0.01, name


@pytest.mark.slow
def test_lora_lowers_the_loss(paths, condition):
    """On one latent with one noise: the base is neither dead nor saturated."""
    dit = load_dit(paths["dit"], dtype=torch.float32)
    network = LoRANetwork(dit, rank=8, alpha=8, seed=0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    latents, noise = torch.randn(2, 1, 32, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    x = torch.cat([(latents + noise) / 2, torch.zeros(1, 33, 2, 4, 4)], dim=1)
    states = condition("a red circle")
    losses = []
    for _ in range(12):
        loss = (dit(x, torch.tensor([500.0]), states) - (noise - latents)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 2
    assert losses[-1] < 0.8 * losses[0]
