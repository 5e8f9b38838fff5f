"""`hv15 sample`: videos of prompts in one command, as the workflow makes them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hv15.commands.options.seeds import agreed_seeds, read_seed
from hv15.commands.sample_work import DecodingWork, decode
from hv15.data.images import read_image
from hv15.errors import UserError
from hv15.lora.reach import Reach, StrengthPart
from hv15.models import load_dit, load_vae
from hv15.project import Project
from hv15.project.metadata import is_anonymous, product_metadata
from hv15.records.json_values import parse_object
from hv15.records.metadata import LORAS, MADE_FROM, SAMPLE
from hv15.records.outputs import LATENTS, VIDEO
from hv15.records.paths import copy_of_step
from hv15.sample.checkpoint_grid import draw_film, draw_grid, film_scale, read_line
from hv15.sample.contact_sheet import read_sample
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
        if line.endswith((".mp4", ".frames", ".safetensors", "there"))
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
    asked = ("--guidance", "3", "--set", "sample.guidance_batch=by_memory", "-o", tmp_path / "out")
    words = ("sample", "a red circle", *SMALL, *asked)
    (file,) = made(done.hv15(*words))
    assert spec_of(file).guidance_batch == choice
    assert re.search(rf"guidance_batch: {choice}: .* as one batch needs \d+ KiB", caplog.text), "the plan's number"
    assert "already there" in done.hv15(*words).err


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


def test_a_named_file_replaces_one_model_of_the_demo(done: Workbench, tmp_path: Path) -> None:
    """Those that the project does not name stay, and are brought as always."""
    dit = done.project.models.path("dit")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/config.yaml").write_text("models: {source: demo}\n")
    words = ("--config", tmp_path / "own/config.yaml", "--dit", dit, "-o", tmp_path / "out")
    assert len(made(hv15("sample", "a red circle", *SMALL, *words))) == 1
    assert (tmp_path / "own/models/demo/vae.safetensors").exists()


def test_a_wrong_value_is_named_by_the_option_that_was_typed(done: Workbench) -> None:
    said = done.hv15("sample", "a red circle", "--frames", "6", "--steps", "0", "--set", "sample.vae_tile_size=x")
    assert "--frames: 6 frames: the VAE needs 4k+1" in said.err
    assert "--steps: found 0, expected at least 1" in said.err
    assert "sample.video_length" not in said.err
    assert "--config sample.vae_tile_size" in said.err
    assert "--config sample.video_length: 6" in done.hv15("sample", "a", "--set", "sample.video_length=6").err


def test_what_is_wrong_with_the_prompt_is_said_so_and_once(done: Workbench) -> None:
    is_a_refusal(done.hv15("sample", " ", *SMALL), ("error: prompt: found '', expected some text",))
    said = done.hv15("sample", "a", "b", "--size", "100", "100")
    assert said.err.count("--size: 100 pixels: must be a multiple of 16") == 1


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


def test_where_loras_act_is_said_for_all_of_them(done: Workbench, tmp_path: Path) -> None:
    lora, loads = done.root / LORA, ("sample", "a red circle", *SMALL, "-o", tmp_path / "out")
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


def test_strengths_are_compared_on_a_sheet(done: Workbench, tmp_path: Path, loads: dict[str, int]) -> None:
    out = tmp_path / "out"
    words = ("sample", "a red circle", "a blue square", *SMALL, "--lora", done.root / LORA, "--strength", "0", "1", "4")
    files = made(done.hv15(*words, "-o", out))
    assert loads == {"dit": 1, "vae": 1}
    *samples, video = files
    assert [[lora.multiplier for lora in spec_of(file).loras] for file in samples] == [
        [],
        [],
        [1.0],
        [1.0],
        [4.0],
        [4.0],
    ]
    assert video.name.startswith("sheet-")
    picture = video.with_suffix(".png")
    labels = ["no LoRA", "strength 1", "strength 4"]
    scale = film_scale([(64, 64)] * 2, 3)
    prompts = ("a red circle", "a blue square")
    lines = [read_line(prompt, samples[number::2], 24.0, scale) for number, prompt in enumerate(prompts)]
    assert np.array_equal(read_image(picture), draw_grid(lines, labels))
    film, _ = draw_film(lines, labels)
    played = read_sample(video)
    assert played.shape == film.shape
    assert abs(played.astype(int) - film.astype(int)).mean() < 6  # x264
    stamps = [file.stat().st_mtime_ns for file in (picture, video)]
    again = done.hv15(*words, "-o", out)
    assert again.err.count("already there") == 6
    assert [file.stat().st_mtime_ns for file in (picture, video)] == stamps
    more = made(done.hv15(*words, "0.5", "-o", out))
    assert loads == {"dit": 2, "vae": 2}
    assert len({*more} - {*files}) == 3  # two samples and a sheet


def test_loras_and_kept_steps_are_compared(done: Workbench, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    shutil.copy(done.root / LORA, other)
    done.paths.checkpoints.mkdir(parents=True, exist_ok=True)
    shutil.copy(done.root / LORA, done.paths.checkpoints / copy_of_step(1))
    words = ("--compare", f"{other}:2", "--checkpoint", "1", "--seed", "1", "-o", tmp_path / "out")
    files = made(done.hv15("sample", "a red circle", *SMALL, *words))
    assert len(files) == 3
    assert [spec_of(file).loras[0].multiplier for file in files[:2]] == [2.0, 1.0]
    assert "other" in files[0].name
    assert "step-1-" in files[1].name


def test_seeds_side_by_side(done: Workbench, tmp_path: Path) -> None:
    words = ("sample", "a red circle", *SMALL, "--seed", "1", "2", "--sheet", "-o", tmp_path / "out")
    *samples, video = made(done.hv15(*words))
    lines = [read_line("a red circle", samples, 24.0, film_scale([(64, 64)], 2))]
    assert np.array_equal(read_image(video.with_suffix(".png")), draw_grid(lines, ["seed 1", "seed 2"]))


def test_a_sheet_without_metadata_tells_nothing(done: Workbench, tmp_path: Path) -> None:
    words = ("sample", "a red circle", *SMALL, "--seed", "1", "2", "--sheet", "--no-metadata", "-o", tmp_path / "out")
    *_, video = made(done.hv15(*words))
    assert product_metadata(video) == product_metadata(video.with_suffix(".png")) == {}
    stamp = video.stat().st_mtime_ns
    assert done.hv15(*words).code == 0
    assert video.stat().st_mtime_ns == stamp


def test_many_rows_make_several_sheets(done: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.commands.sample_sheets.MOST_ROWS", 2)
    words = ("sample", "one", "two", "three", *SMALL[:-1], "1", "--guidance", "1", "--sheet", "-o", tmp_path / "out")
    made(done.hv15(*words))
    sheets = sorted(tmp_path.joinpath("out").glob("sheet-*.png"))
    assert [sheet.stem[-2:] for sheet in sheets] == ["-1", "-2"]
    assert read_image(sheets[0]).shape[0] > read_image(sheets[1]).shape[0]


def test_latents_alone_make_no_sheet(done: Workbench, tmp_path: Path) -> None:
    words = ("--output-type", "latent", "--sheet", "-o", tmp_path / "out")
    is_a_refusal(done.hv15("sample", "a red circle", *SMALL, *words), ("a sheet shows videos or images",))


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
        (("--steps", "0"), "--steps: found 0"),
        (("--frames", "6"), "--frames: "),
        (("--lora", "nothing.safetensors"), "nothing.safetensors: no such file"),
        (("--lora", "/"), "error: --lora /: a folder"),
        (("--set", "quantize"), "expected NAME=VALUE"),
        (("--set", "sample.quantise=fp8"), "quantise"),
        (("--set", "sample.seed=[1"), "--set"),
        (("--image", "nothing.png"), "error: --image: is set, but task is t2v"),
        (("--lora", "x.safetensors", "--include", "(["), "error: --include: '([' is not a regular expression"),
        (("--lora-blocks", "0-19"), "'0-19': expected blocks and a factor such as 0-19:0.5"),
        (("--lora-blocks", "a-b:1"), "expected blocks"),
        (("--lora-steps", "0.5:0"), "expected a part of the steps"),
        (("--lora-steps", "0-1:nan"), "expected a part of the steps"),
        (("--lora", "x.safetensors", "--lora-steps", "0.5-0.2:0"), "expected the begin before the end"),
        (("--prompts-file", "nothing.txt"), "--prompts-file: there is no file"),
        (("--strength", "0.5"), "--strength without a LoRA"),
        (("--compare", "nothing.safetensors"), "nothing.safetensors: no such file"),
        (("--steps", "2", "--set", "sample.zero_init_steps=2"), "zero_init_steps is 2 of 2 steps"),
        (("--checkpoint", "12345"), "--checkpoint 12345: the LoRA after that step is not kept"),
        (("--set", "sample.sage_blocks=[0, 1]"), "sage_blocks: sage runs only on GPUs, not on cpu"),
        (("--set", "sample.attn_mode=xformers"), "attn_mode: xformers runs only on GPUs, not on cpu"),
        (
            ("--set", "sample.compile=true", "sample.compile_backend=x"),
            "compile_backend: torch knows no 'x' here",
        ),
    ],
)
def test_bad_words_are_refused(
    done: Workbench, tmp_path: Path, refusals: None, words: tuple[str, ...], named: str
) -> None:
    said = done.hv15("sample", "a red circle", *SMALL, *words, "-o", tmp_path / "out")
    assert said.code == 2
    assert named in said.err
    assert "Traceback" not in said.err


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    done: Workbench, tmp_path: Path, loads: dict[str, int]
) -> None:
    (tmp_path / "out").touch()
    for folder in (tmp_path / "out", tmp_path / "out" / "below"):
        said = done.hv15("sample", "a red circle", *SMALL, "-o", folder)
        is_a_refusal(said, (str(folder),))
    is_a_refusal(done.hv15("sample", "-i", "-o", tmp_path / "out"), (str(tmp_path / "out"),))
    kept = ("--latents", LATENTS.path(done.paths, "one"))
    is_a_refusal(done.hv15("sample", *kept, "-o", tmp_path / "out"), (str(tmp_path / "out"),))
    assert not any(loads.values())


# -- kept latents ---------------------------------------------------------------------------------------------------


def test_kept_latents_need_only_the_vae(done: Workbench, tmp_path: Path, loads: dict[str, int]) -> None:
    """What is made of them are the workflow's own bytes, with its provenance."""
    kept, made_before = LATENTS.path(done.paths, "one"), VIDEO.path(done.paths, "one")
    words = ("sample", "--latents", kept, "-o", tmp_path / "out")
    (file,) = made(done.hv15(*words))
    assert file == tmp_path / "out" / "one.mp4"
    assert file.read_bytes() == made_before.read_bytes()
    assert loads == {"dit": 0, "vae": 1}
    assert "already there" in done.hv15(*words).err
    assert loads == {"dit": 0, "vae": 1}
    (slower,) = made(done.hv15(*words, "--fps", "12"))
    assert slower == file
    assert spec_of(slower).fps == 12
    (frames,) = made(done.hv15(*words, "--latent_path", kept, "--output-type", "images"))
    assert len(list(frames.glob("*.png"))) == spec_of(file).frames
    again = product_metadata(frames)
    assert parse_object(again[MADE_FROM])["latents"] == parse_object(product_metadata(kept)[MADE_FROM])
    assert again[LORAS] == product_metadata(kept)[LORAS]
    (other,) = made(done.hv15(*words, "--set", "sample.vae_sample_size=128", "sample.vae_tile_overlap=0.5"))
    assert (spec_of(other).vae_sample_size, spec_of(other).vae_tile_overlap) == (128, 0.5)


def test_kept_latents_without_a_project(done: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, vae = LATENTS.path(done.paths, "one"), done.project.models.path("vae")
    monkeypatch.chdir(tmp_path)
    (file,) = made(hv15("sample", "--latents", kept, "--vae", vae))
    assert file.read_bytes() == VIDEO.path(done.paths, "one").read_bytes()
    is_a_refusal(hv15("sample", "--latents", kept), ("config.yaml: does not exist", "--vae"))
    words = ("--set", "runtime.device=cpu", "sample.vae_sample_size=128", "sample.vae_seamless_tiles=true")
    (other,) = made(hv15("sample", "--latents", kept, "--vae", vae, *words, "-o", "other"))
    assert (spec_of(other).vae_sample_size, spec_of(other).vae_seamless_tiles) == (128, True)
    is_a_refusal(hv15("sample", "--latents", kept, "--vae", "gone.safetensors"), ("gone.safetensors",))


def test_kept_latents_are_decoded_in_the_number_format_that_is_asked_for(done: Workbench, tmp_path: Path) -> None:
    """And in no other: what is not asked for is as the latents say, whatever the project's settings are."""
    done.set(sample={"vae_sample_size": 128})
    words = ("sample", "--latents", LATENTS.path(done.paths, "one"), "--output-type", "images", "-o", tmp_path)
    (plain,) = made(done.hv15(*words))
    before = read_sample(plain)
    (chosen,) = made(done.hv15(*words, "--set", "sample.vae_dtype=bfloat16"))
    assert (spec_of(chosen).vae_dtype, spec_of(chosen).vae_sample_size) == ("bfloat16", 256)
    found = read_sample(chosen)
    assert not np.array_equal(found, before)
    assert abs(found.astype(int) - before.astype(int)).mean() < 2


def test_images_and_their_latents(done: Workbench, tmp_path: Path) -> None:
    words = ("sample", "a red circle", *SMALL, "--output-type", "latent_images", "-o", tmp_path / "out")
    frames, latents = made(done.hv15(*words))
    assert (frames.suffix, latents.name) == (".frames", f"{frames.stem}.latents.safetensors")
    assert len(list(frames.iterdir())) == 5
    (again,) = made(done.hv15("sample", "--latents", latents, "-o", tmp_path / "again"))  # images, as it was asked for
    pictures = [sorted(folder.iterdir()) for folder in (frames, again)]
    assert [file.read_bytes() for file in pictures[0]] == [file.read_bytes() for file in pictures[1]]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("a red circle", "--latents", "KEPT"), "prompts cannot be given"),
        (("--latents", "KEPT", "--seed", "3"), "--seed cannot be given"),
        (("--latents", "KEPT", "--output-type", "latent"), "the latents are there already"),
        (("--latents", "KEPT", "--fps", "0"), "--fps 0: expected 0.01 to 1000"),
        (("--latents", "none.safetensors"), "none.safetensors: not readable"),
        (("--latents", "LORA"), "expected latents (4 axes)"),
        (("--latents", "KEPT", "COPY"), "would both become"),
        ((), "no prompt is given"),
    ],
)
def test_other_latents_and_options_are_refused(
    done: Workbench, tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    kept = LATENTS.path(done.paths, "one")
    copy = tmp_path / "copy" / kept.name
    copy.parent.mkdir()
    copy.write_bytes(kept.read_bytes())
    places = {"KEPT": kept, "COPY": copy, "LORA": done.root / LORA}
    is_a_refusal(done.hv15("sample", *(places.get(word, word) for word in words), "-o", tmp_path / "out"), (named,))
    assert not (tmp_path / "out").exists()


# -- seeds and metadata ---------------------------------------------------------------------------------------------


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
