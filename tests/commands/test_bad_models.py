"""Model and LoRA files that cannot be used: refused by name before anything is computed, with what they are."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hv15.choices import ROLES
from hv15.demo.models import DIT
from hv15.models import DiT, load_dit
from hv15.models.dit_files import save_dit
from tests.commands.workbench import LORA, Workbench, hv15

COMMAND = {
    "dit": ("train", "--out", "results/another.safetensors"),
    "vae": ("encode", "latents"),
    "text_encoder": ("encode", "texts"),
    "glyph_encoder": ("encode", "texts"),
}


def model_of(project: Workbench, role: str) -> Path:
    return Path(project.config["models"][role])


def words_for(project: Workbench, role: str) -> list[str | Path]:
    return [project.root / word if "/" in word else word for word in COMMAND[role]]


def with_nan(source: Path, target: Path) -> None:
    """A copy with one NaN in the middle of the largest tensor (but Qwen's last layer, which is never read)."""
    tensors = load_file(source)
    largest = max((value for name, value in tensors.items() if name != "lm_head.weight"), key=torch.Tensor.numel)
    largest.view(-1)[largest.numel() // 2] = torch.nan
    with safe_open(source, framework="pt") as file:
        save_file(tensors, target, file.metadata())


def truncated(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes()[:-100])


def empty(source: Path, target: Path) -> None:
    target.touch()


def text_file(source: Path, target: Path) -> None:
    target.write_text("<html>404 not found, which a browser has saved under the name of the model</html>")


def missing(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)


DAMAGES: dict[Callable[[Path, Path], None], tuple[str, ...]] = {
    with_nan: ("holds NaN or infinity", "use another checkpoint"),
    truncated: ("truncated:", "but its header describes", "download the file again"),
    empty: ("the file is empty",),
    text_file: ("not a safetensors file",),
    missing: ("models.{role}", "does not exist"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("role", ["dit", "vae", "text_encoder", "glyph_encoder"])
def test_damaged_checkpoints(done: Workbench, role: str, damage: Callable[[Path, Path], None]) -> None:
    target = done.root / "damaged.safetensors"
    damage(model_of(done, role), target)
    done.set(models={role: str(target)})
    if role == "glyph_encoder":  # it is read for quoted words alone
        done.set(sample={"prompts": [{"name": "sign", "prompt": 'a sign that says "OPEN"'}]})
    naming = tuple(words.format(role=role) for words in DAMAGES[damage])
    done.refuses(*words_for(done, role), naming=(str(target), *naming))


@pytest.mark.parametrize("role", COMMAND)
@pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "model.bin", "renamed.safetensors"])
def test_pickles_are_refused_before_anything_is_encoded(done: Workbench, role: str, name: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (done.root / "run",))

    target = done.root / name
    target.write_bytes(pickle.dumps({"weights": Trap()}))
    done.set(models={role: str(target)})
    done.refuses("encode", "texts", naming=(name, "pickle", "safetensors.torch.save_file"))
    assert not (done.root / "run").exists()


@pytest.mark.slow
def test_wrong_models_say_what_they_are(done: Workbench) -> None:
    lora = done.root / LORA
    diffusers = done.root / "diffusers.safetensors"
    assert hv15("convert", lora, diffusers, "--to", "diffusers").code == 0
    wrong = [
        ("dit", model_of(done, "vae"), "it looks like a VAE"),
        ("dit", lora, "it looks like a LoRA"),
        ("dit", diffusers, "it looks like a LoRA"),
        ("dit", model_of(done, "text_encoder"), "it looks like a language model"),
        ("vae", model_of(done, "dit"), "it looks like the HunyuanVideo 1.5 transformer"),
        ("vae", lora, "it looks like a LoRA"),
        ("text_encoder", model_of(done, "image_encoder"), "it looks like a SigLIP"),
        ("text_encoder", model_of(done, "glyph_encoder"), "not Qwen2.5-VL: it looks like a T5 or ByT5"),
        ("glyph_encoder", model_of(done, "text_encoder"), "not a ByT5 encoder: it looks like a language model"),
    ]
    config = done.config
    for role, path, kind in wrong:
        done.set(models={**config["models"], role: str(path)})
        done.refuses(*words_for(done, role), naming=(str(path), kind))
        said = done.hv15("check", "--models")
        assert said.code == 2
        assert kind in said.out, said.out


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float16])
def test_weights_that_were_rounded(done: Workbench, dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    target = done.root / "rounded.safetensors"
    save_dit(load_dit(model_of(done, "dit")), target, dtype=dtype)
    done.set(models={"dit": str(target)})
    done.does("train", "--out", done.root / "results/another.safetensors")
    sentence = f"{str(dtype).removeprefix('torch.')} weights are the published ones rounded once more"
    assert f"note: {sentence}" in caplog.text
    assert f"dit            note: {sentence}" in done.does("check").out


def test_models_that_do_not_belong_together(done: Workbench) -> None:
    """Each is sound, but the transformer takes other states than the encoder makes."""
    other = done.root / "dit.safetensors"
    with torch.device("meta"):
        dit = DiT(replace(DIT, text_dim=48))
    save_dit(dit.to_empty(device="cpu").apply(zero), other)
    done.set(models={"dit": str(other)})
    naming = ("models.text_encoder makes text of 64 channels, but models.dit takes 48",)
    done.refuses("train", "--out", done.root / "results/x.safetensors", naming=naming)
    words = ("stage", "denoise", "--name", "one", "--out", done.root / "x.safetensors")
    done.refuses(*words, naming=naming)
    said = done.hv15("check")
    assert (said.code, naming[0] in said.out) == (2, True), said.out


def zero(module: torch.nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.data.zero_()


def test_lycoris_files_are_loras_too(done: Workbench) -> None:
    path = done.root / "loha.safetensors"
    name = "lora_unet_double_blocks_0_img_attn_q"
    save_file({f"{name}.hada_w{i}_{x}": torch.ones(2, 2) for i in (1, 2) for x in "ab"}, path)
    done.set(models={"dit": str(path)})
    done.refuses(*words_for(done, "dit"), naming=(str(path), "it looks like a LoRA"))


def test_a_tokenizer_that_is_none(done: Workbench) -> None:
    (done.root / "tokenizer").mkdir()
    (done.root / "tokenizer" / "tokenizer.json").write_text("{}")
    done.set(models={"tokenizer": "tokenizer"})
    done.refuses("encode", "texts", naming=("tokenizer.json: not a tokenizer file", "models.tokenizer"))


def test_the_right_model_after_a_wrong_one_encodes_nothing_again(done: Workbench) -> None:
    right = model_of(done, "vae")
    (done.root / "vae.safetensors").write_bytes(right.read_bytes()[:-1])
    done.set(models={"vae": "vae.safetensors"})
    done.refuses("encode", "latents", naming=("vae.safetensors: truncated",))
    shutil.copy(right, done.root / "vae.safetensors")
    assert "clips: 0 encoded" in done.does("encode", "latents").err


# -- LoRA files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [pytest.param("train.network_weights", marks=pytest.mark.slow), "sample.loras"])
def test_loras_that_cannot_be_used(done: Workbench, use: str) -> None:
    """As the start of a training, and beside the trained one in sampling."""
    section, key = use.split(".")
    bad = done.root / "bad.safetensors"
    nan = load_file(done.root / LORA)
    next(iter(nan.values())).fill_(torch.nan)
    smaller = {name: value for name, value in load_file(done.root / LORA).items() if "_img_attn_q." not in name}
    larger = load_file(done.root / LORA) | {"lora_unet_double_blocks_99_img_attn_q.alpha": torch.tensor(1.0)}
    cases: list[tuple[Callable[[], object], tuple[str, ...]]] = [
        (lambda: bad.unlink(missing_ok=True), (f"{bad}",)),
        (lambda: bad.write_bytes((done.root / LORA).read_bytes()[:-5]), (f"{bad}: truncated",)),
        (lambda: save_file(nan, bad), (f"{bad}: ", "NaN")),
        (lambda: shutil.copy(model_of(done, "vae"), bad), (f"{bad}: a VAE, not a LoRA",)),
        (lambda: shutil.copy(model_of(done, "dit"), bad), (f"{bad}: the HunyuanVideo 1.5 transformer, not a LoRA",)),
        (lambda: save_file(larger, bad), (f"{bad}: ", "double_blocks_99")),
    ]
    if section == "train":
        cases.append((lambda: save_file(smaller, bad), (f"{bad}: ", "missing, first")))
        done.set(train={key: "bad.safetensors"})
    else:
        done.set(sample={key: [{"path": "bad.safetensors"}]})
    out = done.samples / "another.safetensors"
    for make, naming in cases:
        make()
        if section == "train":
            done.refuses("train", "--out", done.root / "results/another.safetensors", naming=naming)
            continue
        words = ("stage", "denoise", "--name", "one", "--lora", done.root / LORA, "--out", out)
        done.refuses(*words, naming=naming)


@pytest.mark.parametrize(
    ("change", "naming"),
    [
        ({"network_dim": 4}, ("network_weights", "set train.network_dim (4)")),
        ({"network_alpha": 1}, ("network_weights", "train.network_alpha is 1")),
    ],
)
def test_a_lora_of_another_shape_to_start_from(
    done: Workbench, change: dict[str, int], naming: tuple[str, ...]
) -> None:
    done.set(train={"network_weights": LORA, **change})
    done.refuses("train", "--out", done.root / "results/another.safetensors", naming=naming)


def test_demo_roles_are_all_tried() -> None:
    assert set(COMMAND) | {"tokenizer", "image_encoder"} == set(ROLES)
