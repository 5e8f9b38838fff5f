"""`hv15 check`: everything is looked at, each problem is named once, and a program gets it as records."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from hv15.commands.checks import _enlarging_checks
from hv15.gpus import SLURM_JOB, VISIBLE
from hv15.machines import BY_HAND
from hv15.plan import disk
from hv15.plan.stages import StagePlanner
from hv15.project import Project
from hv15.records.checks import Check, read_checks
from hv15.records.problems import Place
from tests.commands.test_bad_clips import add_bad_clips
from tests.commands.workbench import LORA, Workbench, hv15


def checks_of(bench: Workbench, code: int = 0, *words: str) -> list[Check]:
    """What `hv15 check --json` says."""
    said = bench.hv15("check", "--json", *words)
    assert (said.code, said.err) == (code, ""), said.out
    return list(read_checks(json.loads(said.out)))


def test_check_of_a_sound_project(project: Workbench) -> None:
    said = project.does("check")
    assert "everything is in place" in said.out
    assert "3 files, 3 clips, 3 distinct captions" in said.out
    assert "9 x 64 x 64" in said.out
    assert not any(line.startswith("!") for line in said.out.splitlines())


def test_check_loads_nothing_for_super_resolution_that_nobody_asks_for(
    project: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For it torch is imported, which takes as long as 10,000 known clips."""
    monkeypatch.setitem(sys.modules, "hv15.models.upsampler_files", None)  # so that its import fails
    assert {*_enlarging_checks(Project(project.root / "config.yaml"))} == set()


def test_check_and_plan_count_the_texts_and_say_when_datasets_take_part(
    project: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = sorted(project.clips.glob("*.txt"))
    for caption in captions:
        caption.write_text(f"{caption.stem}, red, blue, green, large, small\na {{trigger}}")
    [dataset] = project.config["datasets"]
    drawn = {"caption_variants": True, "shuffle_tags": True, "caption_versions": 4}
    late = {**dataset, "start_step": 2, "max_num_samples": 2, "trigger": "zorp", "caption_extension": ".late"}
    for caption in captions:
        caption.with_suffix(".late").write_text("no place for it")
    project.set(datasets=[{**dataset, **drawn}, late], train={"max_train_steps": 5}, sample={"prompts": []})
    said = project.does("check").out
    assert "5 files, 5 clips, 14 distinct texts" in said  # 3 x 4 of tags, and a line without them for both datasets
    assert "datasets[1]: 2 of 3 files are used (max_num_samples), takes part from step 3 on" in said
    assert "datasets[0]: {trigger} stays as it is without a trigger: clips/" in said
    assert "datasets[1]: trigger is set, but no caption, prefix or suffix holds {trigger}" in said
    monkeypatch.setattr(StagePlanner, "names", ["encode texts"])  # the others take longer
    planned = project.does("plan", "--device", "4090").out
    assert "5 steps with 5 clips and 15 texts" in planned  # and the empty one
    assert "batches of an epoch: 3 in steps 1 to 2, 5 in steps 3 to 5" in planned


def test_check_names_every_problem(project: Workbench) -> None:
    add_bad_clips(project.clips)
    project.set(
        models={"vae": "gone.safetensors"},
        sample={"loras": [{"path": "other.safetensors"}]},
        train={"network_weights": "config.yaml"},
    )
    said = project.hv15("check")
    assert said.code == 2
    marked = [line for line in said.out.splitlines() if line.startswith("!")]
    assert len(marked) == 8, said.out
    for words in ("vae", "gone.safetensors", "other.safetensors", "config.yaml: not a safetensors", "sound.mp4"):
        assert any(words in line for line in marked), said.out
    assert "8 problems" in said.out

    project.set(datasets=[{"video_directory": "clips"}, {"video_directory": "nowhere"}])
    said = project.hv15("check")
    assert (said.code, "nowhere: does not exist" in said.out, "other.safetensors" in said.out) == (2, True, True)
    assert ("dataset", ("datasets", 1)) in {(each.subject, each.place.setting) for each in checks_of(project, 2)}


@pytest.mark.slow
def test_check_finds_settings_that_the_transformer_or_this_machine_cannot_meet(project: Workbench) -> None:
    project.set(train={"blocks_to_swap": 51}, sample={"blocks_to_swap": 2})
    said = project.hv15("check")
    assert said.code == 2
    assert "! train          blocks_to_swap: 51, but the transformer has" in said.out
    assert "! sample" not in said.out

    project.set(train={"blocks_to_swap": 0, "attn_mode": "flash"}, sample={"attn_mode": "sage"})
    said = project.does("check")  # the GPU may be in another machine
    for words in (
        "train          note: on this machine: attn_mode: flash",
        "sample         note: on this machine: attn_mode: sage",
    ):
        assert words in said.out, said.out

    project.set(train={"attn_mode": "auto"}, sample={"attn_mode": "auto", "sage_blocks": [0, 500]})
    said = project.hv15("check")
    assert said.code == 2
    assert "! sample         sample.sage_blocks: [0, 500], but the transformer's blocks are 0 to" in said.out
    project.set(sample={"sage_blocks": [0, 1]})
    assert "sample         note: on this machine: sage_blocks: sage runs only on GPUs" in project.does("check").out


def test_check_notes_what_this_machine_lacks(project: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before the models are there; the jobs would stop after everything is encoded."""
    for name in (SLURM_JOB, *BY_HAND):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(VISIBLE, "0,1")
    file = project.root / "config.yaml"
    config = yaml.safe_load(file.read_text()) | {"models": {"source": "demo", "directory": "not made yet"}}
    config["train"] |= {"optimizer_type": "no_such_package.Adam", "num_processes": 6, "num_machines": 2}
    config["sample"]["context_parallel"] = 3
    file.write_text(yaml.safe_dump(config))
    checks = checks_of(project)
    notes = {each.place.setting: each.text for each in checks if each.state == "note"}
    for setting, words in (
        (("train", "optimizer_type"), "no_such_package is not an installed package"),
        (("train", "num_processes"), "train.num_processes is 6, which needs 3 GPUs on this machine, but this process"),
        (("train", "num_machines"), "train.num_machines is 2, but this is not a SLURM job"),
        (("sample", "context_parallel"), "sample.context_parallel is 3, which needs 3 GPUs"),
    ):
        assert words in notes[setting], notes


def test_check_estimates_what_will_be_written(done: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents of 3 clips, 32 x 3 x 4 x 4 numbers of 2 bytes, and the tokens of each text, until they are encoded."""

    def disk_line() -> str:
        return next(line for line in done.hv15("check").out.splitlines() if " disk " in line)

    monkeypatch.setattr(disk, "_text_tokens", lambda project, texts: 2**40 * len(texts))
    line = disk_line()
    assert " latents" not in line
    assert " texts" not in line
    done.set(cache={"latent_dtype": "bfloat16"})
    line = disk_line()
    assert "about 9.9 KiB latents" in line
    assert not line.startswith("!")
    done.set(cache={"text_dtype": "bfloat16"})
    line = disk_line()
    assert line.startswith("!")
    assert line.endswith("too little")


def test_folders_that_cannot_be_written_to_are_named(
    project: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    project.set(cache={"directory": str(tmp_path / "file/cache")})
    (project.root / "results").symlink_to(tmp_path / "gone")
    said = project.hv15("check").out
    assert f"! disk           {tmp_path / 'file'}: is a file, expected a folder" in said
    assert f"! disk           {project.root / 'results'}: is a link to {tmp_path / 'gone'}, which is not there" in said
    project.set(cache={"directory": str(tmp_path)})
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    assert f"! disk           {tmp_path}: cannot be written to" in project.hv15("check").out


def test_the_estimate_is_near_the_truth(fresh: Workbench, finished: Workbench) -> None:
    """Within a factor of two of what a whole run has written."""
    [use] = disk.disk_uses(fresh.project)
    lora = (finished.root / LORA).stat().st_size
    truth = {
        "latents": sum(path.stat().st_size for path in finished.items("latents")),
        "texts": sum(path.stat().st_size for path in finished.items("text")),
        "training states": sum(path.stat().st_size for path in finished.paths.states.glob("*/*")),
        "LoRA files": 2 * lora,  # the published one is a copy
    }
    assert use.needs.keys() == truth.keys()
    for name, written in truth.items():
        assert written / 2 < use.needs[name] < written * 2, name


def test_check_names_clips_that_are_too_short_for_a_length(project: Workbench) -> None:
    project.set(datasets=[{"video_directory": "clips", "resolution": [64, 64], "target_frames": [9, 401]}])
    said = project.does("check")
    assert said.out.count(": no clip of 401 frames") == 3


@pytest.mark.slow
def test_check_names_videos_of_which_single_frames_are_trained(project: Workbench) -> None:
    assert "learns no motion" not in project.does("check").out
    project.set(datasets=[{"video_directory": "clips", "resolution": [64, 64]}])
    assert "note: datasets[0]: target_frames is [1], so each video gives single frames" in project.does("check").out
    [note] = [each for each in checks_of(project) if "learns no motion" in each.message]
    assert (note.state, note.place.setting) == ("note", ("datasets", 0, "target_frames"))


def test_check_looks_at_what_later_jobs_need(project: Workbench) -> None:
    (project.root / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    project.set(
        train={"include_patterns": ["img_atn"], "optimizer_args": {"betas": [0.9]}},
        models={"tokenizer": str(project.clips)},
        sample={"prompts": [{"name": "one", "prompt": "a circle"}]},
    )
    problems = {each.place.setting: each.message for each in checks_of(project, 2) if each.state == "problem"}
    assert "'img_atn' matches none of the" in problems.pop(("train", "include_patterns"))
    assert "AdamW does not accept {'betas': (0.9,)}" in problems.pop(("train", "optimizer_args"))
    assert "found neither tokenizer.json nor" in problems.pop(("models", "tokenizer"))
    assert list(problems) == [("models", "text_encoder")], "which is loaded with it"


def test_check_of_what_is_still_to_be_made(project: Workbench) -> None:
    config = project.config
    config["models"] = {"source": "demo"}
    (project.root / "config.yaml").write_text(yaml.safe_dump(config))
    said = project.does("check")
    assert said.out.count("will be made by the workflow") == 4


def test_a_program_gets_each_check_with_its_place(project: Workbench) -> None:
    add_bad_clips(project.clips)
    project.set(
        models={"vae": "gone.safetensors"},
        sample={"loras": [{"path": "other.safetensors"}], "context_parallel": 3},
        train={"blocks_to_swap": 51},
    )
    checks = checks_of(project, 2)
    problems = {each.place.setting: each for each in checks if each.state == "problem"}
    for setting, subject, words in (
        (("models", "vae"), "vae", "gone.safetensors: does not exist"),
        (("sample", "loras", 0, "path"), "lora", "other.safetensors"),
        (("train", "blocks_to_swap"), "train", "blocks_to_swap: 51, but the transformer has"),
        (("sample", "context_parallel"), "sample", "context_parallel: 3 does not divide the transformer's 4"),
    ):
        assert problems[setting].subject == subject
        assert words in problems[setting].message
    [dit] = [each for each in checks if each.subject == "dit" and each.state == "ok"]
    assert dit.place == Place(Path(project.config["models"]["dit"]))
    assert Counter(each.subject for each in checks)["unusable"] == 5
    assert {each.subject for each in checks_of(project, 2, "--models")} == {
        *("config", "dit", "train", "sample", "vae", "text_encoder", "glyph_encoder"),
    }


def test_a_config_that_is_wrong_is_checks_too(project: Workbench) -> None:
    config = project.root / "config.yaml"
    config.write_text(config.read_text() + "trian: {}\n")
    line = len(config.read_text().splitlines())
    message = "unknown key; did you mean 'train'?"
    place = Place(config, line, 1, ("trian",))
    assert checks_of(project, 2) == [Check("problem", "config", message, place=place)]
    said = project.hv15("check")
    assert (said.code, said.err) == (2, "")
    assert said.out == f"! config         {config}:{line}:1 trian: {message}\n1 problem\n"
    assert checks_of(project, 2, "--overrides", '{"train": {"seed": "x"}}')[1].place == Place(
        Path("--config"), setting=("train", "seed")
    )


def test_of_many_files_only_the_first_are_listed(project: Workbench) -> None:
    for number in range(25):
        (project.clips / f"{number}.mp4").touch()
        (project.clips / f"{number}.txt").write_text("a caption")
    said = project.hv15("check")
    assert said.out.count("! unusable") == 21
    assert "! unusable       ... and 5 more" in said.out
    assert "25 problems" in said.out
    assert sum(each.subject == "unusable" for each in checks_of(project, 2)) == 25


def test_a_missing_project_is_named(tmp_path: Path) -> None:
    said = hv15("check", tmp_path)
    assert said.out.startswith(f"! config         {tmp_path}/config.yaml: no such file\n    hint: ")
