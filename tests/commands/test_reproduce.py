"""`hv15 reproduce`: a LoRA made again from its own file, and what is said where that gives another one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from hv15.environment import CONFIG_VARIABLE
from hv15.records.found_runs import reproductions
from hv15.records.paths import ProjectPaths, average_of
from tests.commands.workbench import LORA, Said, Workbench, hv15, is_a_refusal


@pytest.fixture(autouse=True)
def stages(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The stages that ran, which here do so in this process."""
    ran: list[list[str]] = []

    def run(words: Sequence[str], config: Path) -> int:
        ran.append([*words])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(CONFIG_VARIABLE, str(config))
            said = hv15(*words)
        assert said.code in (0, 3), said.err
        return said.code

    monkeypatch.setattr("hv15.commands.reproduce.run_stage", run)
    return ran


def work(project: Workbench) -> ProjectPaths:
    [found] = reproductions(project.root)
    return found


def record(project: Workbench) -> dict[str, Any]:
    return json.loads(work(project).reproduction_record.read_text())


def is_identical(said: Said, trainings: int = 1) -> None:
    assert said.code == 0, said.err + said.out
    count = "one training" if trainings == 1 else f"{trainings} trainings"
    assert f"identical: {count} of " in said.out


def rewritten(lora: Path, **metadata: str | None) -> None:
    """Write a LoRA with other metadata; None removes an entry."""
    with safe_open(lora, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        told = {**file.metadata(), **{f"hv15.{name}": text for name, text in metadata.items()}}
    save_file(tensors, lora, {name: text for name, text in told.items() if text is not None})


def others(project: Workbench) -> dict[str, bytes]:
    """All files but those of reproductions and what is remembered about media."""
    return {
        name: content
        for name, content in project.files().items()
        if not name.startswith(("results/reproduced/", "cache/index.json", "cache/probed.json", "cache/fingerprints"))
    }


# -- the same ---------------------------------------------------------------------------------------------------------


def test_every_byte_is_the_same_and_nothing_else_changes(done: Workbench, stages: list[list[str]]) -> None:
    before, items = others(done), done.items("latents") | done.items("text")
    is_identical(hv15("reproduce", done.root / LORA))
    assert [words[:2] for words in stages] == [["encode", "latents"], ["encode", "texts"], ["train", "--out"]]
    assert others(done) == before
    assert done.items("latents") | done.items("text") == items, "nothing is encoded twice"
    found = record(done)
    assert (found["verdict"], found["differences"], found["steps"]) == ("identical", [], 2)
    assert (done.root / found["made"]).read_bytes() == (done.root / LORA).read_bytes()
    stages.clear()
    is_identical(hv15("reproduce", done.root / LORA))
    assert not stages, "it was made again already"


@pytest.mark.slow
def test_the_config_the_names_and_the_number_of_the_clips_may_be_others_by_now(done: Workbench) -> None:
    lora = shutil.copy(done.root / LORA, done.root / "kept.safetensors")
    first, *_ = sorted(done.clips.glob("*.mp4"))
    for path in done.clips.glob(f"{first.stem}.*"):
        path.rename(path.with_name(f"renamed{path.suffix}"))
    shutil.copy(done.clips / "renamed.mp4", done.clips / "more.mp4")
    with (done.clips / "more.mp4").open("ab") as file:
        file.write(b"\0")
    done.caption("more", "one that came later")
    done.set(train={"learning_rate": 0.5, "network_dim": 8}, cache={"shards": 3})
    is_identical(hv15("reproduce", lora))


@pytest.mark.slow
def test_trainings_that_continued_one_another(done: Workbench, stages: list[list[str]]) -> None:
    done.set(train={"learning_rate": 0.001, "continue_from": "latest", "max_train_steps": 4})
    done.train()
    is_identical(hv15("reproduce", done.root / LORA), 2)
    assert sum(words[0] == "train" for words in stages) == 2
    assert record(done)["steps"] == 4
    stages.clear()
    is_identical(hv15("reproduce", done.root / LORA), 2)
    assert not stages


@pytest.mark.slow
def test_a_first_training_whose_rate_depends_on_a_greater_length(project: Workbench, stages: list[list[str]]) -> None:
    """It has to be stopped where the second one began."""
    project.set(train={"lr_scheduler": "cosine", "max_train_steps": 9})
    project.encode()
    project.does("train", "--out", project.root / LORA)
    state = project.paths.states / "step-000008"
    project.set(train={"lr_scheduler": "constant", "continue_from": str(state), "max_train_steps": 10})
    project.train()
    is_identical(hv15("reproduce", project.root / LORA), 2)
    assert ["--until", "8"] in [words[-2:] for words in stages]


@pytest.mark.slow
def test_one_that_started_from_a_copy(done: Workbench) -> None:
    """Its file is named in the config, and need not be there any more."""
    done.set(train={"save_every_n_steps": 1, "seed": 5})
    done.train()
    done.set(train={"continue_from": "results/train/checkpoints/lora-step000001.safetensors", "seed": 6})
    done.train()
    shutil.rmtree(done.paths.training)
    is_identical(hv15("reproduce", done.root / LORA), 2)


@pytest.mark.slow
def test_the_lora_of_an_experiment(done: Workbench) -> None:
    done.set(experiments={"small": {"train.seed": 9}})
    lora = done.root / "results/small/train.safetensors"
    done.does("train", "--experiment", "small", "--out", lora)
    before = others(done)
    is_identical(hv15("reproduce", lora))
    assert others(done) == before
    done.set(train={"learning_rate": 0.5})
    assert record(done)["steps"] == 2


@pytest.mark.slow
def test_copies_of_a_step_and_averages(done: Workbench, stages: list[list[str]]) -> None:
    done.set(train={"save_every_n_steps": 1, "max_train_steps": 4, "ema_decay": 0.5, "seed": 5})
    done.train()
    is_identical(hv15("reproduce", done.paths.checkpoints / "lora-step000002.safetensors"))
    assert stages[-1][-2:] == ["--until", "3"], "the rest does not matter to it"
    is_identical(hv15("reproduce", average_of(done.root / LORA)))
    done.set(train={"publish_step": 2})
    done.plan()
    out = done.paths.checkpoint_lora(2)
    done.does("stage", "lora", "--spec", done.spec("keep_checkpoint.2"), "--out", out)
    is_identical(hv15("reproduce", out))


# -- another one ------------------------------------------------------------------------------------------------------


def differs(said: Said, *words: str) -> None:
    assert said.code == 1, said.err + said.out
    lines = said.out.splitlines()
    assert [line.strip() for line in lines[1 : 1 + len(words)]] == list(words), said.out


def test_another_caption_or_model_is_said_before_anything_is_trained(done: Workbench, stages: list[list[str]]) -> None:
    names = sorted(path.stem for path in done.clips.glob("*.mp4"))
    for name in names:
        done.caption(name, f"{name} is something else")
    said = hv15("reproduce", done.root / LORA)
    assert said.code == 1
    assert sorted(said.out.splitlines()[1:]) == [f"  caption of clips/{name}.mp4 changed" for name in names]
    assert "so it was not trained again" in said.out
    assert not stages
    assert record(done)["verdict"] == "other inputs"
    said = hv15("reproduce", done.root / LORA, "--anyway")
    assert said.code == 1
    assert record(done)["verdict"] == "different"
    assert record(done)["differences"][0].startswith("caption of clips/")
    assert any(words.startswith("step 1: loss ") for words in record(done)["differences"])
    assert any(words.startswith("tensor lora_unet_") for words in record(done)["differences"])


@pytest.mark.slow
def test_another_transformer_comes_first(done: Workbench, tmp_path: Path) -> None:
    dit = Path(done.config["models"]["dit"])
    other = shutil.copy(dit, tmp_path / dit.name)
    done.set(models={"dit": str(other)})
    done.set(train={"seed": 3})
    done.train()
    with safe_open(other, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = next(name for name in tensors if name.endswith("attn_qkv.weight") or name.endswith("attn_q.weight"))
    save_file({**tensors, name: tensors[name] * 1.5}, other)
    done.caption(sorted(done.clips.glob("*.mp4"))[0].stem, "something else")
    said = hv15("reproduce", done.root / LORA)
    assert said.code == 1
    assert said.out.splitlines()[1].strip() == "another transformer (models.dit)"


@pytest.mark.slow
def test_other_programs_are_said_and_do_not_make_another_lora(done: Workbench) -> None:
    lora = done.root / LORA
    rewritten(lora, versions='{"hv15": "0.0.1", "torch": "1.0"}', device="NVIDIA H200", git_commit="f" * 40)
    said = hv15("reproduce", lora)
    assert said.code == 0
    assert "gave the same weights, to the bit" in said.out
    found = record(done)
    assert found["verdict"] == "same weights"
    assert [words.split()[0] for words in found["differences"]] == ["hv15", "torch", "hv15's", "device:"]
    assert found["differences"][-1] == "device: NVIDIA H200 -> cpu"


def test_the_first_step_and_the_first_tensor_are_named(done: Workbench) -> None:
    lora, metrics = done.root / LORA, done.paths.metrics
    with safe_open(lora, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    name = max(tensors, key=lambda name: tensors[name].numel())
    tensors[name].view(-1)[3] += 1
    save_file(tensors, lora, metadata)
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    second = [line for line in lines if line["kind"] == "step"][1]
    loss, second["loss"] = second["loss"], 0.25
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = hv15("reproduce", lora)
    assert "gave another LoRA; it differs first in:" in said.out
    differs(said, f"step 2: loss 0.25 -> {loss}", record(done)["differences"][1])
    assert record(done)["differences"][1].startswith(f"tensor {name}: values differ by up to 1.00e+00")


# -- what cannot be made again ----------------------------------------------------------------------------------------


def test_missing_clips_are_named(done: Workbench, stages: list[list[str]]) -> None:
    name = sorted(done.clips.glob("*.mp4"))[1].stem
    done.remove(name)
    is_a_refusal(hv15("reproduce", done.root / LORA), ("1 of the 3 clips", f"clips/{name}.mp4", "put them back"))
    assert not stages
    shutil.rmtree(done.clips)
    said = hv15("reproduce", done.root / LORA)
    is_a_refusal(said, ("clips", "datasets[0]", f"relative paths start at {done.root}"))
    assert "config.yaml" not in said.err, "it is not read"


def test_missing_clips_are_counted_if_nothing_names_them(done: Workbench) -> None:
    done.remove(sorted(done.clips.glob("*.mp4"))[1].stem)
    done.paths.trained_dataset.unlink()
    differs(
        hv15("reproduce", done.root / LORA),
        "the dataset: it was trained on 3, now there are 2 captioned files, not the same",
    )


def test_the_lock_names_them_too(done: Workbench) -> None:
    done.does("lock")
    done.paths.trained_dataset.unlink()
    name = sorted(done.clips.glob("*.mp4"))[1].stem
    done.remove(name)
    is_a_refusal(hv15("reproduce", done.root / LORA), (f"clips/{name}.mp4",))


def test_files_that_no_training_wrote(done: Workbench, tmp_path: Path) -> None:
    lora = done.root / LORA
    other = tmp_path / "other.safetensors"
    assert hv15("convert", lora, other).code == 0
    is_a_refusal(hv15("reproduce", other), ("is a copy for comfyui", "give the LoRA that it was made from"))
    with safe_open(lora, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, other)
    is_a_refusal(hv15("reproduce", other), ("tells nothing about it",))
    save_file(tensors, other, {"ss_network_module": "networks.lora"})
    is_a_refusal(hv15("reproduce", other), ("was made by another program",))
    shutil.copy(lora, other)
    rewritten(other, config=None, made_from=None)
    is_a_refusal(hv15("reproduce", other), ("does not tell how it was trained", "convert.metadata"))
    assert hv15("lora", "scale", lora, "0.5", "--out", other).code == 0
    is_a_refusal(hv15("reproduce", other), ("was not trained, but made of other LoRAs",))
    other.write_bytes(b"no LoRA")
    is_a_refusal(hv15("reproduce", other), ("not a safetensors file",))
    is_a_refusal(hv15("reproduce", lora, "--project", tmp_path / "nowhere"), ("is not a folder",))


@pytest.mark.slow
def test_a_start_that_is_not_there_any_more(done: Workbench) -> None:
    """Another program's LoRA, which no training here can make again."""
    with safe_open(done.root / LORA, framework="pt") as file:
        save_file({name: file.get_tensor(name) for name in file.keys()}, done.root / "old.safetensors")  # noqa: SIM118
    done.set(train={"continue_from": "old.safetensors", "seed": 5})
    done.train()
    is_identical(hv15("reproduce", done.root / LORA))
    shutil.rmtree(work(done).results)
    (done.root / "old.safetensors").unlink()
    is_a_refusal(hv15("reproduce", done.root / LORA), ("started from the LoRA", "old.safetensors"))
