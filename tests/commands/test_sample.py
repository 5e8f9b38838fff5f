"""`hv15 sample`: videos of prompts in one command, as the workflow makes them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hv15.commands.options.seeds import agreed_seeds, read_seed
from hv15.commands.sample_work import DecodingWork, decode
from hv15.errors import UserError
from hv15.lora.reach import Reach, StrengthPart
from hv15.project import Project
from hv15.project.metadata import is_anonymous, product_metadata
from hv15.records.metadata import LORAS, SAMPLE
from hv15.records.outputs import LATENTS
from hv15.sample.latent_colors import VAE_IDENTITY
from hv15.sample.running import RunningPreview
from tests.commands.sampling import SMALL, made, spec_of
from tests.commands.workbench import LORA, Workbench, hv15, is_a_refusal


def test_it_gives_what_the_workflow_gives(done: Workbench, tmp_path: Path) -> None:
    wanted = load_file(LATENTS.path(done.paths, "one"))
    spec = done.project.sample("one")
    size = ("--size", str(spec.height), str(spec.width), "--frames", str(spec.frames), "--steps", str(spec.steps))
    words = ("--seed", str(spec.seed), "--lora", done.root / LORA, "--output-type", "latent", "-o", tmp_path / "out")
    (file,) = made(done.hv15("sample", spec.prompt, *size, *words))
    assert torch.equal(load_file(file)["latents"], wanted["latents"])
    assert "train.safetensors" in product_metadata(file)[LORAS]


@pytest.mark.parametrize(("free", "choice"), [(10**12, "batched"), (1, "two_pass")])
def test_guidance_by_memory_is_planned_and_told(
    done: Workbench,
    tmp_path: Path,
    free: int,
    choice: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What the plan counts is compared with the memory; the video says what was done, and is not made again."""
    monkeypatch.setattr("hv15.sample.sampler.free_memory", lambda device: free)
    asked = ("--guidance", "3", "--set", "sample.guidance_batch=by_memory", "--output-type", "latent")
    words = ("sample", "a red circle", *SMALL, *asked, "-o", tmp_path / "out")
    (file,) = made(done.hv15(*words))
    assert spec_of(file).guidance_batch == choice
    assert re.search(rf"guidance_batch: {choice}: .* as one batch needs \d+ KiB", caplog.text), "the plan's number"
    assert "already there" in done.hv15(*words).err


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.usefixtures("few_pictures")
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


@pytest.mark.usefixtures("few_pictures")
def test_previews_that_cannot_be_made_end_no_sample(
    done: Workbench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (done.project.cache / "latent-colors").write_text("in the way")
    words = ("sample", "a red circle", *SMALL, "--set", "sample.preview_every_n_steps=1", "-o", tmp_path / "out")
    assert len(made(done.hv15(*words))) == 1
    assert "no previews of running samples" in caplog.text


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
    assert "error: --glyph-encoder: is missing: task t2v needs its path" in missing.err
    assert "--vae: is missing" in missing.err
    mistyped = [*files[:-2], "--vae", "gone.safetensors", "--dit", tmp_path / "gone"]
    is_a_refusal(
        hv15("sample", "a red circle", *mistyped),
        (f"--dit {tmp_path}/gone: no such file or folder", f"--vae {tmp_path}/gone.safetensors: no such file"),
    )
    is_a_refusal(hv15("sample", "--latents", "x", "--vae", "gone"), ("--vae gone: no such file or folder",))


def test_a_named_file_replaces_one_model_of_the_demo(done: Workbench, tmp_path: Path) -> None:
    """Those that the project does not name stay, and are brought as always."""
    dit = done.project.models.path("dit")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/config.yaml").write_text("models: {source: demo}\n")
    words = ("--config", tmp_path / "own/config.yaml", "--dit", dit, "-o", tmp_path / "out")
    assert len(made(hv15("sample", "a red circle", *SMALL, *words))) == 1
    assert (tmp_path / "own/models/demo/vae.safetensors").exists()


def test_strengths_and_options_never_come_from_the_prompt(done: Workbench, tmp_path: Path) -> None:
    lora = done.root / LORA
    odd = 'a "red" circle --seed 7 <lora:x:1> {a|b} %s $(id)'
    words = ("--seed", "3", "--guidance", "1", "--output-type", "latent", "-o", tmp_path)
    files = made(done.hv15("sample", odd, *SMALL, "--lora", f"{lora}:0.5", lora, *words))
    spec = spec_of(files[0])
    assert (spec.prompt, spec.seed, spec.guidance_scale) == (odd, 3, 1.0)
    assert [each.multiplier for each in spec.loras] == [0.5, 1.0]
    assert spec.lora_multiplier is None


def test_where_loras_act_is_said_for_all_of_them(done: Workbench, tmp_path: Path) -> None:
    lora = done.root / LORA
    loads = ("sample", "a red circle", *SMALL, "--output-type", "latent", "-o", tmp_path / "out")
    words = ("--include", "img_attn", "txt_", "--exclude_patterns", "_mod", "--lora-blocks", "0-0:0.5", "1:0")
    (file,) = made(done.hv15(*loads, "--lora", lora, *words, "--lora-steps", "0.5-1:0.25"))
    (used,) = spec_of(file).loras
    assert used.reach == Reach(
        ("img_attn", "txt_"),
        ("_mod",),
        (StrengthPart(0.5, (0, 0)), StrengthPart(0.0, (1, 1)), StrengthPart(0.25, steps=(0.5, 1.0))),
    )
    (recorded,) = json.loads(product_metadata(file)[LORAS])
    assert recorded["strength_by"][2] == {"steps": [0.5, 1.0], "factor": 0.25}
    (alone,) = made(done.hv15(*loads, "--set", f"sample.loras=[{{path: {lora}, exclude_patterns: [_mod]}}]"))
    assert spec_of(alone).loras[0].reach == Reach(exclude=("_mod",))
    refused = done.hv15(*loads, "--lora", lora, "--include", "qkv")
    is_a_refusal(refused, ("include_patterns: 'qkv' matches none of", "double_blocks.0."))
    is_a_refusal(done.hv15(*loads, "--include", "img"), ("there is no --lora",))


def test_image_to_video_shares_the_encoded_image(done: Workbench, tmp_path: Path) -> None:
    models = Path(done.config["models"]["vae"]).parent
    done.set(task="i2v", models={"image_encoder": str(models / "siglip.safetensors")})
    Image.fromarray(np.full((80, 80, 3), 90, np.uint8)).save(tmp_path / "first.png")
    words = ("sample", "a red circle", *SMALL, "--seed", "1", "2", "-o", tmp_path / "out")
    files = made(done.hv15(*words, "--image", tmp_path / "first.png"))
    assert [spec_of(file).task for file in files] == ["i2v", "i2v"]
    assert "i2v starts from an image" in done.hv15(*words).err


@pytest.mark.slow
def test_what_another_command_uses_is_not_taken_from_it(
    done: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands with the same results, of which one ends while the other is about to decode."""
    models = Path(done.config["models"]["vae"]).parent
    done.set(task="i2v", models={"image_encoder": str(models / "siglip.safetensors")})
    Image.fromarray(np.full((80, 80, 3), 90, np.uint8)).save(tmp_path / "first.png")
    words = ("sample", "a red circle", *SMALL, "--image", tmp_path / "first.png", "-o", tmp_path / "out")
    kept: list[bool] = []

    def beside(project: Project, works: Sequence[DecodingWork]) -> None:
        if not works:  # no samples of super resolution
            return
        with monkeypatch.context() as patch:
            patch.setattr("hv15.commands.sample.decode", decode)
            assert len(made(done.hv15(*words, "--seed", "1", "2"))) == 2
        kept.append(any(tmp_path.joinpath("out/.unfinished").glob("*.condition.safetensors")))
        decode(project, works)

    with monkeypatch.context() as patch:
        patch.setattr("hv15.commands.sample.decode", beside)
        files = made(done.hv15(*words, "--seed", "2", "3"))
    assert kept == [True]
    assert [spec_of(file).seed for file in files] == [2, 3]
    assert len(list(tmp_path.joinpath("out").iterdir())) == 3  # nothing else is left


def test_a_file_of_prompts(done: Workbench, tmp_path: Path, loads: dict[str, int]) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(
        "- a red circle --seed 9\n"
        "- {name: Square, prompt: a blue square, seed: 7, output_type: latent, infer_steps: 1}\n"
    )
    files = made(done.hv15("sample", "--prompts-file", file, *SMALL, "--seed", "1", "2", "-o", tmp_path / "out"))
    assert loads == {"dit": 1, "vae": 1}
    specs = [spec_of(each) for each in files]
    assert [(spec.prompt, spec.seed, spec.steps) for spec in specs] == [
        ("a red circle --seed 9", 1, 2),
        ("a red circle --seed 9", 2, 2),
        ("a blue square", 7, 1),
    ]
    assert [each.name.rpartition("-")[0] for each in files] == [
        "a-red-circle-seed-9-seed1",
        "a-red-circle-seed-9-seed2",
        "Square-seed7",
    ]
    file.write_text("- a red circle --seed 9\n- {prompt: a blue square, sede: 7}\n")
    said = done.hv15("sample", "--prompts-file", file, *SMALL)
    assert said.code == 2
    assert "prompts.yaml:2:27 sede: unknown key; did you mean 'seed'?" in said.err
    file.write_text("- a red circle\n- {name: Square, prompt: a blue square, loras: [{path: gone.safetensors}]}\n")
    said = done.hv15("sample", "--prompts-file", file, *SMALL)
    is_a_refusal(said, (f"{file}:2: Square: {done.root}/gone.safetensors: no such file",))


def test_a_random_seed_is_drawn_once_and_told(done: Workbench, tmp_path: Path) -> None:
    words = ("sample", "a red circle", *SMALL, "--output-type", "latent", "-o", tmp_path / "out")
    said = done.hv15(*words, "--seed", "random", "7", "random")
    files = made(said)
    drawn = [int(line.split()[1].rstrip(",")) for line in said.err.splitlines() if "drawn at random" in line]
    assert [spec_of(file).seed for file in files] == [drawn[0], 7, drawn[1]]
    assert drawn[0] != drawn[1]
    assert f"-seed{drawn[0]}-" in files[0].name
    again = done.hv15(*words, "--seed", str(drawn[0]))
    assert made(again) == files[:1]
    assert "already there" in again.err


def test_all_processes_of_a_command_use_the_seeds_that_the_first_has_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    first = agreed_seeds([read_seed("random"), 3])
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert agreed_seeds([read_seed("random"), 3]) == first
    monkeypatch.delenv("HV15_SEEDS")
    with pytest.raises(UserError, match="would draw another one"):
        agreed_seeds([read_seed("random")])
    assert agreed_seeds([5]) == (5,)


@pytest.mark.slow
def test_files_may_say_nothing_about_themselves(done: Workbench, tmp_path: Path, loads: dict[str, int]) -> None:
    words = ("sample", "a red circle", *SMALL, "--output-type", "both", "-o", tmp_path / "out")
    video, latents = made(done.hv15(*words, "--no-metadata"))
    assert product_metadata(video) == {}
    assert b"red circle" not in video.read_bytes()
    assert spec_of(latents).prompt == "a red circle"  # without it they could not be decoded
    assert done.hv15(*words, "--no_metadata").err.count("already there") == 2  # the name says what it is
    assert loads == {"dit": 1, "vae": 1}
    video.write_bytes(video.read_bytes()[:-9])
    made(done.hv15(*words, "--no-metadata"))
    assert loads == {"dit": 1, "vae": 2}
    assert product_metadata(video) == {}
    assert made(done.hv15(*words)) == [video, latents]  # what says nothing is not enough now
    assert spec_of(video).prompt == "a red circle"
    assert "already there" not in done.hv15(*words, "--no-metadata").err.splitlines()[-2]
    assert product_metadata(video) == {}


def test_images_may_say_nothing_either(done: Workbench, tmp_path: Path) -> None:
    words = ("--output-type", "images", "--no-metadata", "-o", tmp_path / "out")
    (frames,) = made(done.hv15("sample", "a red circle", *SMALL, *words))
    for file in frames.iterdir():
        with Image.open(file) as image:
            assert image.info == {}
    assert done.hv15("sample", "a red circle", *SMALL, *words).err.count("already there") == 1
    (decoded,) = made(done.hv15("sample", "--latents", LATENTS.path(done.paths, "one"), *words))
    assert is_anonymous(decoded)
