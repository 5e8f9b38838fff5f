"""`hv15 sample`: videos of prompts in one command, as the workflow makes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hv15.models import load_dit, load_vae
from hv15.project.metadata import product_metadata
from hv15.records.json_values import parse_object
from hv15.records.metadata import LORAS, SAMPLE
from hv15.records.outputs import LATENTS
from hv15.sample.latent_colors import VAE_IDENTITY
from hv15.sample.prompts import SampleSpec
from hv15.sample.running import RunningPreview
from tests.commands.workbench import LORA, Said, Workbench, hv15, is_a_refusal

SMALL = ("--size", "64", "64", "--frames", "5", "--steps", "2")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the transformer and the VAE are loaded."""
    counted = {"dit": 0, "vae": 0}

    def counting(name: str, load: object) -> object:
        def loaded(*words: object, **named: object) -> object:
            counted[name] += 1
            return load(*words, **named)  # type: ignore[operator]

        return loaded

    monkeypatch.setattr("hv15.models.ready.load_dit", counting("dit", load_dit))
    monkeypatch.setattr("hv15.sample.decode.load_vae", counting("vae", load_vae))
    return counted


def made(said: Said) -> list[Path]:
    assert said.code == 0, said.err
    return [
        Path(line.removesuffix(": already there"))
        for line in said.err.splitlines()
        if line.endswith((".mp4", ".safetensors", "there"))
    ]


def spec_of(file: Path) -> SampleSpec:
    return SampleSpec.from_json(parse_object(product_metadata(file)[SAMPLE]))


def test_it_gives_what_the_workflow_gives(done: Workbench, tmp_path: Path) -> None:
    wanted = load_file(LATENTS.path(done.paths, "one"))
    spec = done.project.sample("one")
    size = ("--size", str(spec.height), str(spec.width), "--frames", str(spec.frames), "--steps", str(spec.steps))
    words = ("--seed", str(spec.seed), "--lora", done.root / LORA, "--output-type", "latent", "-o", tmp_path / "out")
    (file,) = made(done.hv15("sample", spec.prompt, *size, *words))
    assert torch.equal(load_file(file)["latents"], wanted["latents"])
    assert "train.safetensors" in product_metadata(file)[LORAS]


def test_each_model_is_loaded_once_and_what_is_there_is_kept(
    done: Workbench, tmp_path: Path, loads: dict[str, int]
) -> None:
    out = ("-o", tmp_path / "out")
    first = made(done.hv15("sample", "a red circle", *SMALL, "--seed", "1", "2", *out))
    assert loads == {"dit": 1, "vae": 1}
    assert [spec_of(file).seed for file in first] == [1, 2]
    assert sorted(tmp_path.joinpath("out").iterdir()) == sorted(first)  # nothing else is left
    stamps = [file.stat().st_mtime_ns for file in first]
    both = made(done.hv15("sample", "a red circle", "a blue square", *SMALL, "--seed", "1", "2", *out))
    assert loads == {"dit": 2, "vae": 2}
    assert both[:2] == first
    assert [file.stat().st_mtime_ns for file in first] == stamps
    again = done.hv15("sample", "a red circle", *SMALL, "--seed", "1", "2", *out)
    assert again.err.count("already there") == 2
    assert loads == {"dit": 2, "vae": 2}
    other = made(done.hv15("sample", "a red circle", *SMALL[:-1], "3", "--seed", "1", *out))
    assert other[0] not in both  # another number of steps is another video, and loses none


def test_a_stopped_run_keeps_what_is_denoised(
    done: Workbench, tmp_path: Path, loads: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_: object) -> None:
        raise KeyboardInterrupt

    words = ("sample", "a red circle", *SMALL, "--seed", "1", "2", "-o", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("hv15.sample.decode.to_frames", stopped)
        assert done.hv15(*words).code == 130
    assert loads == {"dit": 1, "vae": 1}
    assert len(made(done.hv15(*words))) == 2
    assert loads == {"dit": 1, "vae": 2}
    assert {file.suffix for file in tmp_path.joinpath("out").iterdir()} == {".mp4"}


def test_previews_of_running_samples_change_nothing(
    done: Workbench, tmp_path: Path, loads: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[Path, int]] = []
    show = RunningPreview.show

    def recorded(self: RunningPreview, step: int, clean: torch.Tensor) -> None:
        show(self, step, clean)
        shown.append((self.file, step))
        assert product_metadata(self.file)[SAMPLE] == self.spec.to_text()

    monkeypatch.setattr(RunningPreview, "show", recorded)
    words = ("sample", "a red circle", *SMALL[:-1], "5", "--output-type", "both")
    plain = made(done.hv15(*words, "-o", tmp_path / "plain"))
    for _ in range(2):
        files = made(done.hv15(*words, "--set", "sample.preview_every_n_steps=2", "-o", tmp_path / "out"))
        assert [file.read_bytes() for file in files] == [file.read_bytes() for file in plain]
    preview = tmp_path / "out" / ".running" / f"{plain[0].stem}.mp4"
    assert shown == [(preview, 2), (preview, 4)]  # the second call found the sample made
    assert sorted(tmp_path.joinpath("out").iterdir()) == sorted(files)  # nothing else is left
    (colors,) = (done.project.cache / "latent-colors").iterdir()
    assert product_metadata(colors)[VAE_IDENTITY] == done.project.models.identity("vae")
    stamp = colors.stat().st_mtime_ns
    made(done.hv15(*words, "--set", "sample.preview_every_n_steps=3", "--seed", "7", "-o", tmp_path / "out"))
    assert (colors.stat().st_mtime_ns, len(shown)) == (stamp, 3)  # fitted once


def test_previews_that_cannot_be_made_end_no_sample(done: Workbench, tmp_path: Path) -> None:
    (done.project.cache / "latent-colors").write_text("in the way")
    words = ("sample", "a red circle", *SMALL, "--set", "sample.preview_every_n_steps=1", "-o", tmp_path / "out")
    said = done.hv15(*words)
    assert len(made(said)) == 1
    assert "no previews of running samples" in said.err


def test_without_a_project(done: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = done.project.models
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    roles = ("dit", "vae", "text_encoder", "glyph_encoder", "tokenizer")
    files = [word for role in roles for word in (f"--{role.replace('_', '-')}", models.path(role))]
    (file,) = made(hv15("sample", "a red circle", *SMALL, *files))
    assert file.parent == Path("out")
    assert list((tmp_path / "cache" / "hv15" / "store" / "text").rglob("*.safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "project") == ["cache", "out"]
    is_a_refusal(hv15("sample", "a red circle"), ("config.yaml: does not exist", "--project"))
    missing = hv15("sample", "a red circle", "--dit", models.path("dit"))
    assert missing.code == 2
    assert "models.vae: is missing" in missing.err


def test_strengths_and_options_never_come_from_the_prompt(done: Workbench, tmp_path: Path) -> None:
    lora = done.root / LORA
    odd = 'a "red" circle --seed 7 <lora:x:1> {a|b} %s $(id)'
    files = made(
        done.hv15(
            "sample", odd, *SMALL, "--lora", f"{lora}:0.5", lora, "--seed", "3", "--guidance", "1", "-o", tmp_path
        )
    )
    spec = spec_of(files[0])
    assert (spec.prompt, spec.seed, spec.guidance_scale) == (odd, 3, 1.0)
    assert [each.multiplier for each in spec.loras] == [0.5, 1.0]
    assert spec.lora_multiplier is None


def test_image_to_video_shares_the_encoded_image(done: Workbench, tmp_path: Path) -> None:
    models = Path(done.config["models"]["vae"]).parent
    done.set(task="i2v", models={"image_encoder": str(models / "siglip.safetensors")})
    Image.fromarray(np.full((80, 80, 3), 90, np.uint8)).save(tmp_path / "first.png")
    words = ("sample", "a red circle", *SMALL, "--seed", "1", "2", "-o", tmp_path / "out")
    files = made(done.hv15(*words, "--image", tmp_path / "first.png"))
    assert [spec_of(file).task for file in files] == ["i2v", "i2v"]
    assert "i2v starts from an image" in done.hv15(*words).err


@pytest.fixture
def refusals(done: Workbench, tmp_path: Path) -> Iterator[None]:
    before = done.files()
    yield
    done.still_has(before)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--size", "7p"), "7p: expected a resolution"),
        (("--steps", "0"), "infer_steps: found 0"),
        (("--frames", "6"), "video_length"),
        (("--lora", "nothing.safetensors"), "nothing.safetensors: no such file"),
        (("--set", "quantize"), "expected NAME=VALUE"),
        (("--set", "sample.quantise=fp8"), "quantise"),
        (("--set", "sample.seed=[1"), "--set"),
        (("--image", "nothing.png"), "task is t2v"),
    ],
)
def test_bad_words_are_refused(
    done: Workbench, tmp_path: Path, refusals: None, words: tuple[str, ...], named: str
) -> None:
    said = done.hv15("sample", "a red circle", *SMALL, *words, "-o", tmp_path / "out")
    assert said.code == 2
    assert named in said.err
    assert "Traceback" not in said.err
