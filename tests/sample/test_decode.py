"""From latents to what people look at: pixels, sizes, rates, metadata; decoding again from the file alone."""

import json
import weakref
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hv15.data.encode import read_video_metadata
from hv15.errors import UserError
from hv15.models import load_vae
from hv15.models import vae as vae_module
from hv15.models.vae_decoding import Tiling
from hv15.sample.contact_sheet import read_sample
from hv15.sample.decode import SampleDecoder, _Latents, decode_latents, decoded_frames, to_frames
from hv15.sample.files import write_tensors
from hv15.sample.provenance import provenance
from hv15.workflow.made_from import MadeFromReader
from tests.sample.conftest import FRAMES, HEIGHT, TEXT, TRAINED, WIDTH, made_from


@pytest.fixture
def latents(spec, tmp_path):
    path = tmp_path / "cat.latents.safetensors"
    values = torch.randn(4, *spec.latent_size, generator=torch.Generator().manual_seed(0))
    write_tensors(path, {"latents": values}, provenance(spec, made_from(spec), ()))
    return path, values


def read(path):
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames), container.streams.video[0].average_rate


def whole(models, values):
    """Decoded at once."""
    with torch.no_grad():
        return to_frames(load_vae(models["vae"]).decode(values[None]))


def frames_of(vae, values, *tiling, folder):
    return np.stack(list(decoded_frames(vae, values[None], Tiling(*tiling), folder)))


def test_pixels_are_clamped_and_rounded():
    """Output = clamp(x/2 + 0.5, 0, 1), as in the official program, then 8 bits."""
    values = torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0, 0.5])
    frames = to_frames(values.view(1, 1, 1, 1, 6).expand(1, 3, 1, 1, 6))
    assert frames.dtype == np.uint8
    assert frames.shape == (1, 1, 6, 3)
    assert frames[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255, 191]


def test_frames_keep_their_axes():
    """[B, 3, F, H, W] -> [F, H, W, 3]."""
    pixels = torch.rand(1, 3, 5, 16, 32) * 2 - 1
    frames = to_frames(pixels)
    assert frames.shape == (5, 16, 32, 3)
    assert frames[3, 2, 7, 1] == round((pixels[0, 1, 3, 2, 7].item() / 2 + 0.5) * 255)


def test_the_video_has_size_rate_and_length(latents, models, tmp_path, spec):
    decode_latents(latents[0], models["vae"], tmp_path / "cat.mp4", replace(spec, fps=12.0))
    frames, rate = read(tmp_path / "cat.mp4")
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert rate == 12


def test_the_video_shows_the_decoded_latents(latents, models, tmp_path):
    decode_latents(latents[0], models["vae"], tmp_path / "cat.mp4")
    expected = whole(models, latents[1])
    found, _ = read(tmp_path / "cat.mp4")

    def cells(frames):  # means of 8 x 8 pixels: single ones lose their colour to yuv420p
        return frames.reshape(FRAMES, HEIGHT // 8, 8, WIDTH // 8, 8, 3).mean((2, 4))

    assert np.abs(cells(found) - cells(expected)).max() < 8
    assert np.abs(cells(found) - cells(expected[:, ::-1])).max() > 24  # the measure is not blind


def test_the_video_tells_prompt_seed_and_settings(latents, models, tmp_path, spec):
    decode_latents(latents[0], models["vae"], tmp_path / "cat.mp4")
    metadata = read_video_metadata(tmp_path / "cat.mp4")
    assert json.loads(metadata["hv15.sample"]) == spec.to_json()
    assert json.loads(metadata["hv15.loras"]) == []


def test_the_video_tells_the_settings_it_was_decoded_with(latents, models, tmp_path, spec):
    faster = replace(spec, fps=12.0)
    decode_latents(latents[0], models["vae"], tmp_path / "cat.mp4", faster)
    assert json.loads(read_video_metadata(tmp_path / "cat.mp4")["hv15.sample"]) == faster.to_json()


def test_latents_of_another_prompt_are_refused(latents, models, tmp_path, spec):
    other, output = replace(spec, prompt="a dog"), tmp_path / "cat.mp4"
    with pytest.raises(UserError, match="another prompt"):
        decode_latents(latents[0], models["vae"], output, other, made_from=other.decoding(TRAINED, TEXT))
    assert not output.exists()


@pytest.mark.parametrize("output", ["cat.mp4", "cat.frames"])
def test_the_result_tells_what_it_was_made_from(latents, models, tmp_path, spec, output):
    wanted = spec.decoding(TRAINED, TEXT)
    decode_latents(latents[0], models["vae"], tmp_path / output, spec, made_from=wanted)
    assert MadeFromReader(tmp_path / "memory.json").made_from(tmp_path / output) == wanted


def test_what_is_decoded_by_hand_tells_nothing_of_a_spec(latents, models, tmp_path, spec):
    """It would be taken for the latents, whose metadata it has."""
    decode_latents(latents[0], models["vae"], tmp_path / "cat.mp4")
    assert "hv15.made_from" not in read_video_metadata(tmp_path / "cat.mp4")


def test_a_difficult_prompt_survives_in_the_metadata(models, tmp_path, spec):
    difficult = replace(spec, prompt='“雪”\nline; a=b "quoted" \\ #hash \N{PILE OF POO}')
    path = tmp_path / "cat.latents.safetensors"
    write_tensors(path, {"latents": torch.zeros(4, *spec.latent_size)}, provenance(difficult, made_from(difficult), ()))
    decode_latents(path, models["vae"], tmp_path / "cat.mp4")
    metadata = read_video_metadata(tmp_path / "cat.mp4")
    assert json.loads(metadata["hv15.sample"])["prompt"] == difficult.prompt


def test_images_are_exact_and_tell_it_too(latents, models, tmp_path, spec):
    decode_latents(latents[0], models["vae"], tmp_path / "cat.frames")
    files = sorted((tmp_path / "cat.frames").iterdir())
    assert len(files) == FRAMES
    expected = whole(models, latents[1])
    assert np.array_equal(np.stack([np.asarray(Image.open(file)) for file in files]), expected)
    with Image.open(files[0]) as image:
        assert json.loads(image.text["hv15.sample"]) == spec.to_json()


def test_an_animation_is_exact_and_tells_it_too(latents, models, tmp_path, spec):
    path = tmp_path / "cat.animation.png"
    decode_latents(latents[0], models["vae"], path, spec, made_from=None)
    expected = whole(models, latents[1])
    assert np.array_equal(read_sample(path), expected)
    with Image.open(path) as image:
        assert json.loads(image.text["hv15.sample"]) == spec.to_json()
        assert image.info["duration"] == pytest.approx(1000 / spec.fps, abs=1)


def test_decoding_the_file_alone_gives_the_same_bytes(latents, models, tmp_path, spec):
    """`latent_path`: everything that decoding needs is in the latents file."""
    decode_latents(latents[0], models["vae"], tmp_path / "a.mp4", spec)
    decode_latents(latents[0], models["vae"], tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.slow
def test_tiles_are_used_when_asked_for(models, tmp_path):
    vae, values = load_vae(models["vae"]), torch.randn(4, 2, 9, 10)
    blended = frames_of(vae, values, 128, 0.25, folder=tmp_path)
    assert not np.array_equal(blended, whole(models, values))
    with torch.no_grad():
        assert np.array_equal(blended, to_frames(vae.decode(values[None], tile_size=128, overlap=0.25)))


def test_seamless_tiles_show_the_whole_picture(models, tmp_path):
    values = torch.randn(4, 2, 9, 10)
    seamless = frames_of(load_vae(models["vae"]), values, 128, 0.25, True, folder=tmp_path)
    assert np.abs(seamless.astype(int) - whole(models, values)).max() <= 1  # rounding


def test_the_spec_decides_the_tiles(models, spec, tmp_path):
    path, large = tmp_path / "cat.latents.safetensors", replace(spec, frames=1, height=192, width=160)
    write_tensors(path, {"latents": torch.randn(4, *large.latent_size)}, provenance(large, made_from(large), ()))
    images = []
    for size in (0, 128):
        decode_latents(path, models["vae"], tmp_path / "frames", replace(large, vae_sample_size=size))
        images.append(np.asarray(Image.open(tmp_path / "frames" / "0000.png")))
    assert not np.array_equal(*images)


def test_an_overlap_that_cannot_be_is_a_users_mistake(models, tmp_path):
    with pytest.raises(UserError, match=r"vae_tile_overlap 0\.3"):
        frames_of(load_vae(models["vae"]), torch.randn(4, 1, 12, 10), 128, 0.3, folder=tmp_path)


def test_latents_of_another_vae_are_refused(models, tmp_path):
    with pytest.raises(UserError, match="latents of 32 channels, but the VAE has 4"):
        frames_of(load_vae(models["vae"]), torch.randn(32, 1, 2, 3), folder=tmp_path)


def test_latents_of_another_size_are_refused(latents, models, tmp_path, spec):
    with pytest.raises(UserError, match=r"cat\.latents\.safetensors: \(2, 2, 3\) .*\(2, 4, 3\)"):
        decode_latents(latents[0], models["vae"], tmp_path / "cat.mp4", replace(spec, height=64))


def test_foreign_latents_are_refused(models, tmp_path, spec):
    save_file({"latents": torch.zeros(4, *spec.latent_size)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors: does not say how the latents were made"):
        decode_latents(tmp_path / "other.safetensors", models["vae"], tmp_path / "cat.mp4")


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:200], lambda raw: raw[:-8], lambda raw: b"", lambda raw: b"x" * 99]
)
def test_damaged_latents_are_named(latents, models, tmp_path, damage):
    latents[0].write_bytes(damage(latents[0].read_bytes()))
    with pytest.raises(UserError, match=r"cat\.latents\.safetensors: not readable"):
        decode_latents(latents[0], models["vae"], tmp_path / "cat.mp4")


def test_a_vae_that_returns_nan_is_named(models, latents, tmp_path):
    vae = load_vae(models["vae"])
    vae.decoder.conv_in.conv.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="NaN"):
        frames_of(vae, latents[1], folder=tmp_path)


ANIMATION = pytest.param("cat.animation.png", marks=pytest.mark.slow)


@pytest.mark.parametrize("output", ["cat.mp4", "cat.frames", ANIMATION])
def test_a_decoding_that_fails_midway_leaves_the_former_file(latents, models, tmp_path, spec, output):
    """Of a damaged VAE the first frame may be finite. The spooled tiles, too, are gone."""
    decode_latents(latents[0], models["vae"], tmp_path / output, spec)
    before = read_sample(tmp_path / output)
    values = latents[1].clone()
    values[:, 1] = torch.nan
    decoder = SampleDecoder(models["vae"], "float32")
    with pytest.raises(UserError, match="NaN"):
        decoder.write(_Latents(values, replace(spec, vae_sample_size=32, vae_tile_overlap=0.5), {}), tmp_path / output)
    assert np.array_equal(read_sample(tmp_path / output), before)
    assert {file.name for file in tmp_path.iterdir()} == {"cat.latents.safetensors", output}


def test_a_full_disk_while_tiles_wait_is_told(latents, models, tmp_path, spec, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hv15.models.spool.Spool.add", full)
    with pytest.raises(UserError, match=r"cat\.mp4: cannot be written: No space left on device") as raised:
        decode_latents(
            latents[0], models["vae"], tmp_path / "cat.mp4", replace(spec, vae_sample_size=32, vae_tile_overlap=0.5)
        )
    assert "free some disk space" in raised.value.hint
    assert [file.name for file in tmp_path.iterdir()] == ["cat.latents.safetensors"]


@pytest.mark.parametrize("output", ["cat.mp4", pytest.param("cat.frames", marks=pytest.mark.slow), ANIMATION])
def test_the_whole_video_is_never_there(models, tmp_path, spec, output, monkeypatch):
    """Each frame is written before the next chunk is decoded."""
    long = replace(spec, frames=41)
    decoded, alive = [], []

    def counted(pixels):
        frames = to_frames(pixels)
        decoded.append(weakref.ref(frames))
        alive.append(sum(each() is not None for each in decoded))
        return frames

    monkeypatch.setattr("hv15.sample.decode.to_frames", counted)
    monkeypatch.setitem(vae_module._CHUNK_BYTES, "cpu", 1)
    decoder = SampleDecoder(models["vae"], "float32")
    decoder.write(_Latents(torch.randn(4, *long.latent_size), long, {}), tmp_path / output)
    assert len(decoded) == 11
    assert max(alive) <= 2
    assert len(read_sample(tmp_path / output)) == 41
