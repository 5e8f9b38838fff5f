"""`hv15 upsample`: a finished video at a larger size, from its latents or from a video file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from hv15.data.captions import caption_key
from hv15.data.encode import write_video
from hv15.data.probe import probe
from hv15.demo.models import DIT
from hv15.models import DiT, load_dit, load_vae, save_dit
from hv15.models.latents import scale, unscale
from hv15.models.upsamplers import Upsampler720, Upsampler720Config, Upsampler1080, Upsampler1080Config
from hv15.models.vae_pixels import encode_clips
from hv15.project.metadata import product_metadata
from hv15.records.json_values import parse_object
from hv15.records.metadata import ENLARGED, SAMPLE
from hv15.records.outputs import LATENTS, VIDEO
from hv15.sample.condition import cover_crop, encode_frame
from hv15.sample.denoise import denoise
from hv15.sample.noise import initial_noise
from hv15.sample.prompts import SampleSpec
from hv15.sample.sampling import text_condition
from hv15.sample.schedule import sigmas
from hv15.sample.small_video import look, read_frames
from hv15.sample.super_resolution import LowResolution, upsampled
from tests.commands.workbench import LORA, Said, Workbench, hv15

PROMPT = "a red circle"


@pytest.fixture(scope="session")
def enlarging(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Untrained models of super resolution for the demo's VAE, as settings of `models:`."""
    folder = tmp_path_factory.mktemp("sr")
    with torch.random.fork_rng():
        torch.manual_seed(11)
        save_dit(DiT(replace(DIT, meanflow=True, low_resolution=True)), folder / "sr.safetensors")
        save_file(Upsampler720(Upsampler720Config(32, 8, 1)).state_dict(), folder / "up.safetensors")
    return {"sr_dit": str(folder / "sr.safetensors"), "upsampler": str(folder / "up.safetensors")}


@pytest.fixture
def bench(done: Workbench, enlarging: dict[str, str]) -> Workbench:
    """A finished project that has models of super resolution."""
    done.set(models=enlarging)
    return done


def spec_of(file: Path) -> SampleSpec:
    return SampleSpec.from_json(parse_object(product_metadata(file)[SAMPLE]))


def latents_of(bench: Workbench) -> Path:
    return LATENTS.path(bench.paths, "one")


def made(said: Said) -> Path:
    assert said.code == 0, said.err
    return Path(said.err.splitlines()[-1].removesuffix(": already there"))


def composed(bench: Workbench, small: Tensor, seed: int, *, image: np.ndarray | None = None) -> Tensor:
    """The unscaled latents [C, F', h, w] that the parts give, put together here."""
    models, store = bench.project.models, bench.project.texts.store
    dit = load_dit(models.path("sr_dit"), super_resolution=True)
    first = vision = None
    if image is not None:
        from hv15.models import load_image_encoder

        first = scale(encode_frame(load_vae(models.path("vae"), dtype=torch.float32), cover_crop(image, 96, 96)))[None]
        seen = cover_crop(image, 960, 960)  # the official size at 720p for a square
        vision = load_image_encoder(models.path("image_encoder"), dtype=torch.float32).encode([seen])[0]
    low = upsampled(scale(small)[None], 6, 6, models.path("upsampler"), torch.device("cpu"))
    noise = initial_noise(low.shape, seed)
    cond = text_condition(store.read(caption_key(PROMPT)), vision, glyphs=True)
    found = denoise(dit, noise, cond, None, sigmas(6, 2.0), 1.0, first, low=LowResolution.noised(low, seed))
    return unscale(found)[0]


def test_latents_are_enlarged(bench: Workbench, tmp_path: Path) -> None:
    """What the command writes is what its parts give; the file tells how it was made."""
    out = tmp_path / "big.latents.safetensors"
    assert made(bench.hv15("upsample", latents_of(bench), "-o", out)) == out
    found, before = load_file(out)["latents"], spec_of(latents_of(bench))
    assert found.shape == (32, 2, 6, 6)
    assert_close(found, composed(bench, load_file(latents_of(bench))["latents"], before.seed), atol=1e-5, rtol=0)
    spec = spec_of(out)
    assert (spec.prompt, spec.seed, spec.height, spec.width) == (PROMPT, before.seed, 96, 96)
    assert (spec.steps, spec.flow_shift, spec.guidance_scale, spec.lora_multiplier) == (6, 2.0, 1.0, None)
    assert spec.enlarges is not None
    assert (spec.enlarges.resolution, spec.enlarges.height, spec.enlarges.width) == ("720p", 64, 64)
    assert set(spec.models) >= {"sr_dit", "upsampler"}
    assert "dit" not in spec.models
    assert SampleSpec.from_json(parse_object(product_metadata(out)[ENLARGED])) == before


@pytest.mark.slow
def test_a_video_stands_beside_the_small_one_and_is_made_once(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    file = made(bench.hv15("upsample", latents_of(bench)))
    assert file == latents_of(bench).with_name("one.sr.mp4")
    info = probe(file, "video")
    assert (info.width, info.height, len(info.timeline.times)) == (96, 96, 5)
    assert not (file.parent / ".unfinished").exists()
    assert "64x64 to 96x96 is not an official pair of sizes" in caplog.text
    content, stamp = file.read_bytes(), file.stat().st_mtime_ns
    assert bench.hv15("upsample", latents_of(bench)).err.endswith(": already there\n")
    assert file.stat().st_mtime_ns == stamp
    file.unlink()
    made(bench.hv15("upsample", latents_of(bench)))
    assert file.read_bytes() == content  # the noise of the condition is seeded, too
    made(bench.hv15("upsample", latents_of(bench), "--seed", "7"))
    assert file.read_bytes() != content


@pytest.mark.slow
def test_a_stopped_run_keeps_what_is_denoised(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hv15.sample.decode.SampleDecoder.decode", stopped)
        assert bench.hv15("upsample", latents_of(bench)).code == 130
    with monkeypatch.context() as patch:
        patch.setattr("hv15.models.ready.load_dit", stopped)
        assert made(bench.hv15("upsample", latents_of(bench))).is_file()


def test_without_memory_it_says_what_helps(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr("hv15.sample.sampler.load_ready", full)
    bench.refuses(
        "upsample", latents_of(bench), naming=("out of memory in super resolution: CUDA", "sample.blocks_to_swap")
    )


def test_a_video_of_hv15_tells_its_prompt(bench: Workbench, tmp_path: Path) -> None:
    """It is encoded first; what compression lost, its latents have lost."""
    video, out = VIDEO.path(bench.paths, "one"), tmp_path / "big.latents.safetensors"
    made(bench.hv15("upsample", video, "-o", out))
    frames = torch.from_numpy(read_frames(look(video, "480p")))[None]
    assert frames.shape == (1, 5, 64, 64, 3)
    vae = load_vae(bench.project.models.path("vae"), dtype=torch.float32)
    with torch.no_grad():
        small = encode_clips(vae, frames, 256, 0.25)[0]
    assert_close(load_file(out)["latents"], composed(bench, small, spec_of(video).seed), atol=1e-5, rtol=0)


def test_any_other_video_needs_a_prompt(
    bench: Workbench, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size becomes an official one, its length 4k+1; its rate stays."""
    video = tmp_path / "clip.mp4"
    pixels = np.random.default_rng(0).integers(0, 255, (7, 40, 70, 3), dtype=np.uint8)
    write_video(video, pixels, 12.0)
    refused = bench.hv15("upsample", video)
    assert refused.code == 2
    assert "does not tell the video's prompt" in refused.err
    assert "--prompt" in refused.err
    small = look(video, "480p")
    assert (small.frames, small.height, small.width, small.fps) == (5, 480, 848, 12.0)
    assert "resized and cropped from 70x40 to 848x480 pixels and cut from 7 to 5 frames" in small.change
    monkeypatch.setattr("hv15.sample.small_video.official_size", lambda *_: (64, 112))  # the real one takes long
    said = bench.hv15("upsample", video, "--prompt", PROMPT, "--size", "96", "160", "--steps", "1")
    info = probe(made(said), "video")
    assert (info.width, info.height, len(info.timeline.times), info.timeline.rate) == (160, 96, 5, 12)
    assert "resized and cropped from 70x40 to 112x64 pixels and cut from 7 to 5 frames" in caplog.text


@pytest.mark.slow
def test_image_to_video_encodes_its_image_at_the_large_size(bench: Workbench, tmp_path: Path) -> None:
    folder = Path(bench.config["models"]["vae"]).parent
    bench.set(models={"image_encoder": str(folder / "siglip.safetensors")})
    image = np.random.default_rng(1).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "first.png")
    out = tmp_path / "big.latents.safetensors"
    made(bench.hv15("upsample", latents_of(bench), "--image", tmp_path / "first.png", "-o", out))
    small = load_file(latents_of(bench))["latents"]
    found, wanted = load_file(out)["latents"], composed(bench, small, spec_of(out).seed, image=image)
    assert spec_of(out).task == "i2v"
    assert_close(found, wanted, atol=1e-5, rtol=0)
    assert not torch.allclose(found, composed(bench, small, spec_of(out).seed), atol=1e-3)
    # The large video tells its image as well.
    again = bench.hv15("upsample", out, "-o", tmp_path / "larger.latents.safetensors", "--steps", "1")
    assert spec_of(made(again)).image == spec_of(out).image
    Image.fromarray(image[::-1]).save(tmp_path / "first.png")
    changed = bench.hv15("upsample", out, "-o", tmp_path / "x.mp4")
    assert changed.code == 2
    assert "first.png: changed since the video was made from it" in changed.err


def test_loras_are_used_only_if_asked_for(bench: Workbench, tmp_path: Path) -> None:
    lora = bench.root / LORA
    weights = {key: torch.randn_like(value) for key, value in load_file(lora).items()}
    metadata = product_metadata(lora)
    save_file(weights, lora, metadata)
    outs = [tmp_path / f"{name}.latents.safetensors" for name in ("without", "with")]
    made(bench.hv15("upsample", latents_of(bench), "-o", outs[0]))
    made(bench.hv15("upsample", latents_of(bench), "-o", outs[1], "--lora", lora, "--set", "sample.quantize=none"))
    without, with_lora = (load_file(out)["latents"] for out in outs)
    assert not torch.allclose(without, with_lora, atol=1e-3)
    assert [len(spec_of(out).loras) for out in outs] == [0, 1]


def test_without_a_project(
    bench: Workbench, enlarging: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = bench.project.models
    small = shutil.copy(latents_of(bench), tmp_path / "small.latents.safetensors")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    files = [word for role, path in enlarging.items() for word in (f"--{role.replace('_', '-')}", path)]
    for role in ("vae", "text_encoder", "glyph_encoder", "tokenizer"):
        files += [f"--{role.replace('_', '-')}", str(models.path(role))]  # type: ignore[arg-type]
    file = made(hv15("upsample", small, "-o", "big.mp4", *files))
    assert file == Path("big.mp4")
    assert sorted(path.name for path in empty.iterdir()) == ["big.mp4"]
    refused = hv15("upsample", small)
    assert refused.code == 2
    assert "config.yaml: does not exist" in refused.err


def test_the_two_models_belong_together(bench: Workbench, tmp_path: Path, enlarging: dict[str, str]) -> None:
    save_file(Upsampler1080(Upsampler1080Config(32, (32,), 1)).state_dict(), tmp_path / "1080.safetensors")
    small = latents_of(bench)
    other = bench.hv15("upsample", small, "--to", "1080p")
    assert other.code == 2
    assert "up.safetensors: is the latent upsampler for 720p, but sample.sr is 1080p" in other.err
    folder = tmp_path / "720p_sr_distilled"
    folder.mkdir()
    shutil.copy(enlarging["sr_dit"], folder / "model.safetensors")
    bench.set(models={"sr_dit": str(folder), "upsampler": str(tmp_path / "1080.safetensors")})
    mixed = bench.hv15("upsample", small)
    assert mixed.code == 2
    assert "is the latent upsampler for 1080p, but models.sr_dit is the transformer for 720p" in mixed.err
    (folder / "config.json").write_text(json.dumps({"ideal_resolution": "1080p"}))
    out = tmp_path / "big.latents.safetensors"
    made(bench.hv15("upsample", small, "-o", out))
    assert spec_of(out).steps == 8


def test_a_check_tells_of_the_models(bench: Workbench, tmp_path: Path, enlarging: dict[str, str]) -> None:
    said = bench.does("check")
    assert "super-resolution, float32, mean flow" in said.out
    assert "to 720p" in said.out
    folder = tmp_path / "1080p_sr_distilled"
    folder.mkdir()
    shutil.copy(enlarging["sr_dit"], folder / "model.safetensors")
    bench.set(models={"sr_dit": str(folder)})
    mixed = bench.hv15("check")
    assert mixed.code
    assert "but models.sr_dit is the transformer for 1080p" in mixed.out + mixed.err
    bench.set(models={"sr_dit": str(bench.project.models.path("dit"))})
    assert "but super resolution takes 98" in bench.hv15("check").out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("nothing.mp4",), "nothing.mp4: no such file"),
        (("{root}/results",), "results: is a folder"),
        (("{root}/config.yaml",), "is neither a video nor latents"),
        (("{root}/results/train.safetensors",), "expected latents (4 axes)"),
        (("{latents}", "-o", "x.txt"), "does not say what to write"),
        (("{latents}", "--size", "100", "96"), "100 pixels: must be a multiple of 16"),
        (("{latents}", "--to", "4k"), "invalid choice"),
        (("{latents}", "--steps", "0"), "infer_steps"),
        (("{latents}", "--sr-dit", "{dit}"), "but super resolution takes 98"),
        (("{latents}", "--upsampler", "{dit}"), "not a latent upsampler: it looks like"),
        (("{latents}", "--lora", "nothing.safetensors"), "nothing.safetensors: no such file"),
        (("{latents}", "--image", "nothing.png"), "nothing.png: no such file"),
        (("{latents}", "--image", "{latents}"), "cannot be read as an image"),
    ],
)
def test_what_cannot_be_used_is_refused(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], named: str
) -> None:
    places = {"root": bench.root, "latents": latents_of(bench), "dit": bench.project.models.path("dit")}
    monkeypatch.chdir(tmp_path)
    before = bench.files()
    said = bench.hv15("upsample", *(word.format(**places) for word in words))
    assert said.code == 2
    assert named in said.err, said.err
    assert "Traceback" not in said.err
    bench.still_has(before)


def test_a_project_without_such_models_says_which(done: Workbench) -> None:
    said = done.hv15("upsample", latents_of(done))
    assert said.code == 2
    assert [words in said.err for words in ("models.sr_dit: is missing", "models.upsampler: is missing")] == [True] * 2
