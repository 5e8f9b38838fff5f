"""What later jobs would refuse is refused before the first of them, all at once, and what is good is looked at once."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hv15.config.presets import preset_names, preset_text
from hv15.demo.layout import BASE, DEMO_FILES
from hv15.models import DiTConfig
from hv15.plan import beforehand
from hv15.plan.beforehand import early_checks, refuse_beforehand
from hv15.plan.model_sizes import ModelSizes
from hv15.project import Project
from hv15.records.problems import ConfigError, Location
from hv15.workflow import make_planner
from tests.workflow.quick import QuickProject

ONE: dict[str, Any] = {"name": "one", "prompt": "a red circle"}


@pytest.fixture
def project(tmp_path: Path) -> QuickProject:
    return QuickProject.make(tmp_path / "project")


def opened(project: QuickProject) -> Project:
    return Project(project.root / "config.yaml")


def refused(project: QuickProject) -> dict[Location, str]:
    """Setting -> what is wrong with it."""
    try:
        refuse_beforehand(opened(project))
    except ConfigError as error:
        return {each.place.setting: each.message if each.hint else "without a hint" for each in error.problems}
    return {}


def picture(path: Path, width: int = 64, height: int = 64) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def test_a_sound_project_is_not_refused(project: QuickProject) -> None:
    project.add_lora("start.safetensors")
    project.add_lora("style.safetensors", rank=2)
    picture(project.root / "first.png")
    project.set(
        task="i2v",
        train={
            "network_weights": "start.safetensors",
            "optimizer_args": {"betas": [0.9, 0.95], "weight_decay": "1e-2"},
        },
        sample={"loras": [{"path": "style.safetensors"}], "prompts": [{**ONE, "image_path": "first.png"}]},
    )
    assert refused(project) == {}


def test_where_a_lora_acts_must_be_where_its_file_has_layers(project: QuickProject) -> None:
    project.add_lora("style.safetensors", rank=2)
    by = [{"blocks": [0, 0], "factor": 0.5}]
    sound = {"path": "style.safetensors", "include_patterns": ["img_attn"], "strength_by": by}
    project.set(sample={"loras": [sound], "prompts": [ONE]})
    assert refused(project) == {}
    foreign = [{"path": "style.safetensors", "exclude_patterns": ["single_blocks"]}]
    deep = {**sound, "strength_by": [{"blocks": [60, 70], "factor": 0.5}]}
    missing = {"path": "none.safetensors", "include_patterns": ["img_attn"]}
    project.set(sample={"loras": [sound, deep, missing], "prompts": [{**ONE, "loras": foreign}]})
    found = refused(project)
    assert found.keys() == {
        ("sample", "loras", 1, "strength_by"),
        ("sample", "loras", 2, "path"),
        ("sample", "prompts", 0, "loras", 0, "exclude_patterns"),
    }
    assert "'single_blocks' matches none of" in found["sample", "prompts", 0, "loras", 0, "exclude_patterns"]


def test_a_super_resolution_with_fewer_blocks_cannot_take_the_trained_lora(project: QuickProject) -> None:
    """As the demo's: 3 blocks where the base has 6, with 14 layers each."""
    sample = {"sr": "auto", "sr_with_loras": True, "prompts": [ONE]}
    project.set(sample=sample)
    said = refused(project)
    assert said.keys() == {("sample", "sr_with_loras")}
    found = said["sample", "sr_with_loras"]
    assert "42 of 84 layers of the trained LoRA are not in the transformer of super resolution" in found
    assert "first double_blocks.3.img_mod.linear" in found
    project.set(train={"include_patterns": [r"double_blocks\.[0-2]\."]})
    assert refused(project) == {}
    project.set(train={"include_patterns": []}, sample={"sr_with_loras": False})
    assert refused(project) == {}


def test_everything_is_refused_at_once(project: QuickProject) -> None:
    project.add_lora("start.safetensors", rank=8)
    (project.root / "style.safetensors").write_bytes(b"<html>404</html>")
    whole = picture(project.root / "whole.png").read_bytes()
    (project.root / "torn.png").write_bytes(whole[: len(whole) // 2])
    picture(project.root / "strip.png", width=3200, height=16)
    project.set(
        task="i2v",
        train={"network_weights": "start.safetensors", "optimizer_args": {"betas": [0.9]}},
        sample={
            "loras": [{"path": "style.safetensors"}],
            "prompts": [
                {**ONE, "image_path": "torn.png"},
                {"name": "two", "prompt": "a circle", "image_path": "strip.png"},
                {"name": "three", "prompt": "a circle", "image_path": "whole.png"},
            ],
        },
    )
    found = refused(project)
    assert "rank 8, but train.network_dim is 4" in found.pop(("train", "network_weights"))
    assert "AdamW does not accept {'betas': (0.9,)}: " in found.pop(("train", "optimizer_args"))
    assert "style.safetensors" in found.pop(("sample", "loras", 0, "path"))
    assert "torn.png" in found.pop(("sample", "prompts", 0, "image_path"))
    assert "3200x16 pixels is too narrow" in found.pop(("sample", "prompts", 1, "image_path"))
    assert found == {}


def test_the_picture_of_the_published_copies(project: QuickProject) -> None:
    """One that the workflow makes is not there yet."""
    (project.root / "text.png").write_text("no picture")
    picture(project.root / "whole.png")
    project.set(convert={"formats": ["comfyui"]})
    for name, found in (("gone.png", "no such file"), ("text.png", "cannot be read as an image")):
        project.set(convert={"preview": name})
        assert found in refused(project)["convert", "preview"]
    for name in ("whole.png", "results/samples/contact_sheet.png", ""):
        project.set(convert={"preview": name})
        assert not refused(project)
    project.set(convert={"preview": "gone.png", "formats": []})
    assert not refused(project)


@pytest.mark.parametrize("setting", ["include_patterns", "exclude_patterns"])
def test_patterns_that_match_nothing(project: QuickProject, setting: str) -> None:
    project.set(train={setting: ["img_atn"]})
    assert refused(project)["train", setting].startswith("'img_atn' matches none of the ")


@pytest.mark.parametrize(
    ("train", "setting", "words"),
    [
        ({"network_dim_patterns": {"img_atn": 2}}, "network_dim_patterns", "'img_atn' matches none of the "),
        ({"network_alpha_patterns": {"img_atn": 2}}, "network_alpha_patterns", "'img_atn' matches none of the "),
        ({"layer_blocks": [0, 60]}, "layer_blocks", "[0, 60], but the transformer's blocks are 0 to "),
        ({"network_dim": 4096}, "network_dim", "rank 4096 of double_blocks.0.img_mod.linear is above its smaller side"),
    ],
)
def test_a_network_that_cannot_be(project: QuickProject, train: dict[str, Any], setting: str, words: str) -> None:
    """Each is said once, at its own setting."""
    project.set(train=train, convert={"formats": ["comfyui"]})
    found = refused(project)
    assert list(found) == [("train", setting)]
    assert found["train", setting].startswith(words)


def test_files_that_the_training_uses(project: QuickProject) -> None:
    project.add_lora("start.safetensors", rank=8)
    (project.root / "base.safetensors").write_bytes(b"<html>404</html>")
    base = [{"path": "start.safetensors"}, {"path": "base.safetensors"}]
    project.set(train={"network_weights": "start.safetensors", "dim_from_weights": True, "base_weights": base})
    found = refused(project)
    assert "base.safetensors" in found.pop(("train", "base_weights", 1, "path"))
    assert found == {}
    project.set(train={"network_type": "dora", "base_weights": []})
    assert "is a LoRA, but train.network_type is dora" in refused(project)["train", "network_weights"]


def test_a_format_that_cannot_hold_the_kind(project: QuickProject) -> None:
    project.set(train={"network_type": "dora"}, convert={"formats": ["comfyui", "official"]})
    assert refused(project) == {("convert", "formats"): "official cannot hold this dora: it holds only LoRA"}


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        ({"img_": 1e-5, "img_atn": 2e-5}, "'img_atn' matches none of the "),
        ({"img_": "0.5x", "img_attn": "0.2x"}, "'img_attn' has no effect: earlier patterns are found in all of its"),
        ({r"(\w+)+!": "0.5x"}, "matches none of the "),
    ],
)
def test_rates_of_layers_that_do_not_exist(project: QuickProject, patterns: dict[str, Any], words: str) -> None:
    project.set(train={"learning_rate_patterns": [{"img_mlp": 1e-5}, {"img_": "0.5x"}]})
    assert refused(project) == {}
    project.set(train={"learning_rate_patterns": patterns})
    assert words in refused(project)["train", "learning_rate_patterns"]


@pytest.mark.parametrize(
    ("options", "setting", "words"),
    [
        ({"optimizer_type": "torch.optm.AdamW"}, "optimizer_type", "torch.optm cannot be imported"),
        ({"optimizer_type": "torch.optim.LBFGS"}, "optimizer_type", "torch.optim.LBFGS cannot be used: "),
        (
            {"optimizer_type": "pytorch_optimizer.ScheduleFreeAdamW", "scale_weight_norms": 1},
            "scale_weight_norms",
            "cannot be used with pytorch_optimizer.ScheduleFreeAdamW",
        ),
    ],
)
def test_a_class_that_cannot_be_used(project: QuickProject, options: dict[str, Any], setting: str, words: str) -> None:
    project.set(train=options)
    assert words in refused(project)["train", setting]


def test_a_class_whose_package_is_missing_may_be_elsewhere(project: QuickProject) -> None:
    """`hv15 check` notes it; the training may run on another machine."""
    project.set(train={"optimizer_type": "no_such_package.Adam"})
    assert refused(project) == {}


@pytest.mark.parametrize(
    ("optimizer", "arguments"),
    [
        ("AdamW", {"betas": [0.9]}),
        ("AdamW", {"weight_decay": -1}),
        ("AdamW", {"momentum": 0.9}),
        ("AdamW8bit", {"betas": [0.9]}),
        ("AdamW8bit", {"amsgrad": 1}),
        ("Muon", {"betas": [0.9, 0.95]}),
        ("Muon", {"ns_coefficients": [1, 2]}),
        ("Muon", {"ns_steps": 200}),
        ("Lion", {"betas": [2, 3]}),
        ("Adafactor", {"relative_step": True}),
        ("CAME", {"betas": [0.9]}),
        ("Prodigy", {"d0": 0}),
        ("AdamWScheduleFree", {"warmup_steps": 5}),
    ],
)
def test_arguments_that_the_optimizer_refuses(project: QuickProject, optimizer: str, arguments: dict[str, Any]) -> None:
    """When it is built, or at its first step."""
    project.set(train={"optimizer_type": optimizer, "optimizer_args": arguments})
    [setting] = refused(project)
    assert setting in {("train", "optimizer_args"), ("train", "optimizer_args", *arguments)}


def test_a_checkpoint_that_has_not_been_published(project: QuickProject) -> None:
    project.set(models={"source": "hub", "variant": "720p_t2v_distilled"})
    assert refused(project)["models", "variant"].startswith("720p_t2v_distilled was announced, but")
    project.set(models={"variant": "480p_t2v_distilled"})
    assert refused(project) == {}


WITH_FILES = [name for name in preset_names() if yaml.safe_load(preset_text(name))["models"]["source"] == "files"]


@pytest.mark.parametrize("preset", WITH_FILES)
def test_the_tokenizer_of_a_preset_is_a_folder(tmp_path: Path, preset: str) -> None:
    assert len(WITH_FILES) >= 3
    (tmp_path / "config.yaml").write_text(preset_text(preset))
    with pytest.raises(ConfigError) as error:
        Project(tmp_path / "config.yaml").models.check()
    [problem] = [each for each in error.value.problems if each.place.setting == ("models", "tokenizer")]
    assert "models/tokenizer does not exist" in problem.message
    assert "Qwen/Qwen2.5-VL-7B-Instruct" in problem.hint


def test_a_folder_that_holds_no_tokenizer(project: QuickProject) -> None:
    (project.root / "words").mkdir()
    roles = ("dit", "vae", "text_encoder", "glyph_encoder")
    models = {role: str(BASE / Path(DEMO_FILES[role]).name) for role in roles}
    project.set(models={"source": "files", "tokenizer": "words", **models})
    assert "found neither tokenizer.json nor" in refused(project)["models", "tokenizer"]


def test_what_is_good_is_looked_at_once(project: QuickProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it changes; what is wrong is looked at each time."""
    project.add_lora("style.safetensors")
    picture(project.root / "first.png")
    project.set(
        task="i2v",
        train={"optimizer_args": {"weight_decay": 0.1}},
        sample={"loras": [{"path": "style.safetensors"}], "prompts": [{**ONE, "image_path": "first.png"}]},
    )
    assert refused(project) == {}
    monkeypatch.setattr(beforehand, "_check_image", lambda path: pytest.fail("checked again"))
    monkeypatch.setattr(beforehand, "_check_optimizer", lambda train: pytest.fail("checked again"))
    assert refused(project) == {}
    monkeypatch.undo()
    picture(project.root / "first.png", width=3200, height=16)
    assert list(refused(project)) == [("sample", "prompts", 0, "image_path")]
    assert list(refused(project)) == [("sample", "prompts", 0, "image_path")]
    picture(project.root / "first.png", width=80)
    assert refused(project) == {}


def test_what_is_good_in_each_experiment_is_looked_at_once(
    project: QuickProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One experiment does not forget what another one remembers."""
    rates = [{"train.optimizer_args": {"weight_decay": decay}} for decay in (0.1, 0.2, 0.3)]
    project.set(sweep={"list": rates})
    seen: list[object] = []
    monkeypatch.setattr(beforehand, "_check_optimizer", seen.append)

    def plan() -> int:
        seen.clear()
        make_planner(opened(project), targets=("experiments",))
        return len(seen)

    assert (plan(), plan()) == (3, 0)
    project.set(sweep={"list": [*rates[:2], {"train.optimizer_args": {"weight_decay": 0.4}}]})
    assert (plan(), plan()) == (1, 0)


def test_models_of_many_experiments_are_read_once(project: QuickProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a file cannot be read, the published sizes are assumed; that is not remembered."""
    project.set(experiments={"one": {"train.seed": 1}, "two": {"train.seed": 2}})
    base = opened(project)
    one, two = (ModelSizes(base.experiment(name)) for name in ("one", "two"))
    monkeypatch.setattr(ModelSizes, "_path", lambda self, role: project.root / "missing.safetensors")
    assert (one.dit.num_blocks, one.assumed) == (DiTConfig().num_blocks, ["dit"])
    monkeypatch.undo()
    three = ModelSizes(base.experiment("one"))
    assert three.dit is two.dit
    assert three.dit.num_blocks < DiTConfig().num_blocks
    assert three.assumed == two.assumed == []


def test_equal_files_are_looked_at_once(project: QuickProject, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(beforehand, "_check_image", seen.append)
    picture(project.root / "first.png")
    prompts = [{**ONE, "name": f"n{number}", "image_path": "first.png"} for number in range(3)]
    project.set(task="i2v", sample={"prompts": prompts})
    assert refused(project) == {}
    assert seen == [project.root / "first.png"]


def test_a_place_that_cannot_be_written_costs_nothing_but_time(project: QuickProject) -> None:
    (project.root / ".hv15").write_text("no folder")
    assert refused(project) == {}


def test_no_torch_without_need(project: QuickProject) -> None:
    """Also with LoRAs and images, and with arguments of the optimizer from the second time on."""
    project.add_lora("start.safetensors")
    picture(project.root / "first.png")
    project.set(
        task="i2v",
        train={"network_weights": "start.safetensors"},
        sample={"prompts": [{**ONE, "image_path": "first.png"}]},
    )
    words = (
        "import sys; from pathlib import Path; from hv15.project import Project; "
        "from hv15.plan.beforehand import refuse_beforehand; "
        f"refuse_beforehand(Project(Path({str(project.root / 'config.yaml')!r}))); "
        "print('torch' in sys.modules)"
    )

    def loads_torch() -> bool:
        done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
        return done.stdout == "True\n"

    assert not loads_torch()
    project.set(train={"optimizer_args": {"weight_decay": 0.1}})
    refuse_beforehand(opened(project))
    assert not loads_torch()


def test_each_check_names_its_setting(project: QuickProject) -> None:
    assert [early.setting for early in early_checks(opened(project))] == [
        ("models", "variant"),
        ("train", "exclude_patterns"),
    ]


@pytest.mark.parametrize("package", ["torch", "bitsandbytes"])
def test_the_optimizer_is_checked_again_with_another_version_of_its_package(
    project: QuickProject, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.set(train={"optimizer_type": "AdamW8bit", "optimizer_args": {"weight_decay": 0.1}})
    seen: list[object] = []
    monkeypatch.setattr(beforehand, "_check_optimizer", seen.append)
    for _ in range(2):
        refuse_beforehand(opened(project))
    assert len(seen) == 1
    monkeypatch.setattr(beforehand, "version", lambda name: "99" if name == package else version(name))
    refuse_beforehand(opened(project))
    assert len(seen) == 2
