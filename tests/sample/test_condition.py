"""The first frame of an i2v sample, from the image file to the model's input."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.models import load_image_encoder, load_vae
from hv15.models.vae_pixels import from_bytes
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.sample import sampler
from hv15.sample.condition import cover_crop, first_images, write_condition
from tests.sample.conftest import HEIGHT, WIDTH, StandIn, made_from, text_item


@pytest.fixture
def i2v(spec, image_of):
    return replace(spec, task="i2v", variant="480p_i2v", image=image_of)


@pytest.fixture
def condition(i2v, models, tmp_path):
    path = tmp_path / "cat.condition.safetensors"
    write_condition(i2v, tmp_path, models["vae"], models["image_encoder"], path, made_from=i2v.conditioning())
    return path


@pytest.mark.parametrize("size", [(60, 100), (100, 60), (32, 48), (20, 20), (301, 47)])
def test_cover_crop_is_the_official_transform(size):
    """torchvision's Resize to the rounded size and CenterCrop, in PIL's terms: scale to cover, cut out the middle."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = cover_crop(pixels, 32, 48)
    factor = max(32 / size[0], 48 / size[1])
    height, width = round(size[0] * factor), round(size[1] * factor)
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    top, left = round((height - 32) / 2), round((width - 48) / 2)
    assert found.shape == (32, 48, 3)
    assert np.array_equal(found, whole[top : top + 32, left : left + 48])


def test_an_image_of_the_right_size_is_untouched():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    assert np.array_equal(cover_crop(pixels, 32, 48), pixels)


def test_the_file_holds_the_unscaled_mode_and_the_states_of_the_crop(i2v, models, condition, tmp_path):
    found = load_file(condition)
    frame = first_images(i2v, tmp_path).frame
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    with torch.no_grad():
        expected = load_vae(models["vae"]).encode(pixels)[0]
    assert found["latents"].shape == (4, 1, HEIGHT // 16, WIDTH // 16)
    assert_close(found["latents"], expected, atol=1e-5, rtol=1e-5)
    assert_close(found["vision"], load_image_encoder(models["image_encoder"]).encode([frame])[0], atol=1e-5, rtol=1e-5)


def test_the_vae_may_have_a_number_format_of_its_own(i2v, models, condition, tmp_path):
    path, chosen = tmp_path / "other.condition.safetensors", replace(i2v, vae_dtype="bfloat16")
    write_condition(chosen, tmp_path, models["vae"], models["image_encoder"], path, made_from=chosen.conditioning())
    frame = torch.from_numpy(first_images(i2v, tmp_path).frame)[None, None]
    with torch.no_grad():
        vae = load_vae(models["vae"], dtype=torch.bfloat16)
        expected = vae.encode(from_bytes(frame, torch.bfloat16))[0].float()
    found, usual = load_file(path), load_file(condition)
    assert torch.equal(found["latents"], expected)
    assert not torch.equal(found["latents"], usual["latents"])
    assert torch.equal(found["vision"], usual["vision"])


def test_the_file_tells_what_it_was_made_from(i2v, condition):
    with safe_open(condition, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["hv15.made_from"]) == i2v.conditioning()
    assert json.loads(metadata["hv15.sample"]) == i2v.to_json()


def test_the_model_sees_the_scaled_frame_the_mask_and_the_same_vision_in_both_branches(
    i2v, condition, tmp_path, monkeypatch
):
    model = StandIn(lambda x, timestep, cond: x[:, :4])
    monkeypatch.setattr(sampler, "load_ready", lambda path, settings, **options: model)
    output = tmp_path / "cat.latents.safetensors"
    texts = text_item(1), text_item(2, tokens=3)
    sampler.sample_latents(i2v, None, None, *texts, condition, output, made_from=made_from(i2v))
    stored = load_file(condition)
    assert len(model.calls) == 2 * i2v.steps
    for x, _, cond, _ in model.calls:
        assert_close(x[0, 4:8, 0], stored["latents"][:, 0] * 1.03682, atol=1e-6, rtol=1e-6)
        assert not x[:, 4:8, 1:].any()
        assert (x[:, 8, 0] == 1).all()
        assert not x[:, 8, 1:].any()
        assert torch.equal(cond.vision[0], stored["vision"])


def test_the_image_steers_the_sample(i2v, spec, models, condition, tmp_path):
    latents = {}
    for name, each, path in (("i2v", i2v, condition), ("t2v", spec, None)):
        output = tmp_path / f"{name}.latents.safetensors"
        texts = text_item(1), text_item(2)
        sampler.sample_latents(each, models["dit"], None, *texts, path, output, made_from=made_from(each))
        latents[name] = load_file(output)["latents"]
    assert not torch.allclose(latents["i2v"], latents["t2v"], atol=1e-2)


def test_t2v_ignores_a_condition_file(spec, models, condition, tmp_path):
    """An image must never leak into a text-to-video sample."""
    found, output = [], tmp_path / "x.safetensors"
    for path in (condition, None):
        texts = text_item(1), text_item(2)
        sampler.sample_latents(spec, models["dit"], None, *texts, path, output, made_from=made_from(spec))
        found.append(load_file(output)["latents"])
    assert torch.equal(*found)


def test_an_image_that_changed_since_the_plan_is_refused(i2v, image, tmp_path):
    Image.new("RGB", (20, 20)).save(image)
    with pytest.raises(UserError, match=r"first\.png: changed"):
        first_images(i2v, tmp_path)


def test_a_damaged_image_is_named(i2v, image, tmp_path):
    image.write_bytes(image.read_bytes()[:50])
    with pytest.raises(UserError, match=r"first\.png"):
        first_images(i2v, tmp_path)


def test_a_relative_image_starts_at_the_project(i2v, image, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    relative = replace(i2v, image=replace(i2v.image, path="first.png"))
    assert np.array_equal(first_images(relative, tmp_path).frame, first_images(i2v, tmp_path).frame)


def test_a_condition_of_another_size_is_refused(i2v, models, condition, tmp_path):
    larger, texts, output = replace(i2v, height=64), (text_item(1), text_item(2)), tmp_path / "x.safetensors"
    with pytest.raises(UserError, match=r"condition\.safetensors: a first frame of \(1, 2, 3\).*expected \(1, 4, 3\)"):
        sampler.sample_latents(larger, models["dit"], None, *texts, condition, output, made_from=made_from(larger))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not readable"),
        (b"", "not readable"),
        ({"latents": torch.zeros(4, 1, 2, 3)}, "expected"),
        ({"latents": torch.full((4, 1, 2, 3), torch.nan), "vision": torch.zeros(9, 24)}, "NaN"),
    ],
)
def test_a_damaged_condition_is_named(i2v, models, tmp_path, content, message):
    path = tmp_path / "bad.condition.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_file(content, path)
    texts, output = (text_item(1), text_item(2)), tmp_path / "x.safetensors"
    with pytest.raises(UserError, match=rf"bad\.condition\.safetensors: .*{message}"):
        sampler.sample_latents(i2v, models["dit"], None, *texts, path, output, made_from=made_from(i2v))


def test_a_strip_is_no_first_images(i2v, tmp_path):
    """Otherwise it would be enlarged to gigabytes."""
    path = tmp_path / i2v.image.path
    Image.fromarray(np.zeros((1, 30_000, 3), np.uint8)).save(path)
    strip = replace(i2v, image=replace(i2v.image, fingerprint=model_fingerprint(path)))
    with pytest.raises(UserError, match=r"a picture of 30000x1 pixels is too small"):
        first_images(strip, tmp_path)
