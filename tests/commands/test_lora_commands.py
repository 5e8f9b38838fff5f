"""`hv15 convert`, `merge`, `verify` and the tools for LoRAs as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hv15.models import load_dit
from hv15.models.weights.fingerprint import model_fingerprint
from tests.commands.workbench import LORA, Workbench, hv15, is_a_refusal


def test_copies_are_averaged(tmp_path: Path) -> None:
    files = [tmp_path / f"{step}.safetensors" for step in (10, 20)]
    for step, path in zip((10, 20), files, strict=True):
        name = "lora_unet_double_blocks_0_img_attn_q"
        tensors = {"lora_down.weight": torch.full((2, 4), step), "lora_up.weight": torch.zeros(4, 2)}
        whole = {f"{name}.{part}": tensor.float() for part, tensor in tensors.items()}
        save_file(whole | {f"{name}.alpha": torch.tensor(2.0)}, path, {"ss_steps": str(step)})
    out = tmp_path / "out.safetensors"
    said = hv15("ema", *files, "--out", out, "--sigma-rel", "0.1")
    assert said.code == 0, said.err
    assert f"%  {files[1]}" in said.err
    assert 10 < load_file(out)[f"{name}.lora_down.weight"].mean() < 20
    is_a_refusal(hv15("ema", *files, "--out", out, "--sigma-rel", "3"), ("sigma-rel: found 3",))
    is_a_refusal(hv15("ema", *files, "--out", files[0]), ("is both read and written",))


@pytest.mark.parametrize("to", ["comfyui", "diffusers", "official"])
def test_convert_and_back(done: Workbench, to: str) -> None:
    other, back = done.root / "other.safetensors", done.root / "back.safetensors"
    assert hv15("convert", done.root / LORA, other, "--to", to).code == 0
    assert hv15("convert", other, back, "--reverse").code == 0
    original, returned = load_file(done.root / LORA), load_file(back)
    assert original.keys() == returned.keys()
    for name in original:
        torch.testing.assert_close(returned[name], original[name])
    assert "ss_network_dim: 2" in hv15("show", other).out


def test_convert_refuses_what_is_no_lora(done: Workbench) -> None:
    target = done.root / "target.safetensors"
    target.write_bytes(b"what was there before")
    half = {name: value for name, value in load_file(done.root / LORA).items() if not name.endswith("lora_up.weight")}
    save_file(half, done.root / "half.safetensors")
    save_file({"a.lora_down.weight": torch.ones(2, 2)}, done.root / "foreign.safetensors")
    (done.root / "old.ckpt").write_bytes(b"\x80\x04")
    for source, naming in (
        (done.root / "gone.safetensors", "no such file"),
        (done.clips, "a folder"),
        (done.root / "config.yaml", "not a safetensors file"),
        (done.root / "old.ckpt", "pickle"),
        (done.root / "half.safetensors", "lora_down"),
        (done.root / "foreign.safetensors", "belong to no part of HunyuanVideo 1.5"),
        (Path(done.config["models"]["dit"]), "not a LoRA"),
    ):
        is_a_refusal(hv15("convert", source, target), (str(source), naming))
    assert target.read_bytes() == b"what was there before"


@pytest.mark.parametrize(
    ("parts", "naming"),
    [
        ({"weight": torch.ones(32), "on_input": torch.tensor(0)}, "an (IA)^3"),
        pytest.param(
            {"diff": torch.ones(32, 32), "diff_b": torch.ones(32)}, "changes of biases", marks=pytest.mark.slow
        ),
        pytest.param(
            {
                "q_layer.weight": torch.ones(2, 32),
                "p_layer.weight": torch.ones(32, 2),
                "lambda_layer": torch.ones(1, 2),
            },
            "a T-LoRA",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_lora_that_cannot_be_used_is_refused_wherever_it_is_named(
    done: Workbench, parts: dict[str, torch.Tensor], naming: str
) -> None:
    lora = done.root / "lora.safetensors"
    save_file({f"lycoris_double_blocks_0_img_attn_q.{part}": tensor for part, tensor in parts.items()}, lora)
    words = (str(lora), f"the file holds {naming}", "which hv15 cannot use")
    is_a_refusal(hv15("convert", lora, done.root / "target.safetensors"), words)
    done.refuses("merge", "--out", done.root / "target.safetensors", "--lora", lora, naming=words)
    assert all(word in hv15("show", lora).out for word in words)
    for change in ({"sample": {"loras": [{"path": str(lora)}]}}, {"train": {"network_weights": str(lora)}}):
        done.set(**{"sample": {"loras": []}, "train": {"network_weights": None}} | change)
        said = done.hv15("check")
        assert said.code != 0
        assert all(word in said.out + said.err for word in words)


def test_convert_says_what_it_did(done: Workbench) -> None:
    target = done.root / "other.safetensors"
    modules = len([name for name in load_file(done.root / LORA) if name.endswith(".alpha")])
    said = hv15("convert", done.root / LORA, target, "--to", "official")
    assert said.err == f"{target}: official layout, {modules} modules\n"
    name = "lora_unet_double_blocks_0_img_attn_q"
    save_file({f"{name}.hada_w{i}_{x}": torch.ones(2, 2) for i in (1, 2) for x in "ab"}, done.root / "loha.safetensors")
    said = hv15("convert", done.root / "loha.safetensors", target, "--to", "official", "--svd-rank", "1")
    assert "1 modules; 1 modules are the nearest LoRA of rank 1; relative error at most" in said.err
    said = hv15("convert", done.root / "loha.safetensors", target)
    assert "comfyui layout, 1 modules; 2 missing parts of joined q, k, v are filled with zeros" in said.err


def test_convert_refuses_orders_that_contradict(done: Workbench) -> None:
    target = done.root / "other.safetensors"
    words = ("convert", done.root / LORA, target)
    is_a_refusal(hv15(*words, "--reverse", "--to", "diffusers"), ("--reverse together with --to diffusers",))
    is_a_refusal(hv15(*words, "--svd-rank", "0"), ("--svd-rank 0: expected at least 1",))
    assert not target.exists()
    assert hv15(*words, "--reverse", "--to", "kohya").code == 0
    (done.root / "folder.safetensors").mkdir()
    said = hv15("convert", done.root / LORA, done.root / "folder.safetensors")
    is_a_refusal(said, ("folder.safetensors: cannot be written", "choose another name"))
    assert "disk space" not in said.err


def test_a_target_of_another_kind(done: Workbench) -> None:
    is_a_refusal(hv15("convert", done.root / LORA, done.root / "lora.pt"), ("lora.pt", ".safetensors"))


def test_merge(done: Workbench) -> None:
    target = done.root / "merged.safetensors"
    done.does("merge", "--out", target, "--lora", done.root / LORA, "--multiplier", "0.5")
    base, merged = load_dit(done.config["models"]["dit"]), load_dit(target)
    lora = load_file(done.root / LORA)
    name = "double_blocks.0.img_attn_q"
    key = f"lora_unet_{name.replace('.', '_')}"
    change = 0.5 * lora[f"{key}.lora_up.weight"] @ lora[f"{key}.lora_down.weight"]  # alpha is the rank
    expected = (base.get_parameter(f"{name}.weight").float() + change).to(base.dtype)
    torch.testing.assert_close(merged.get_parameter(f"{name}.weight").data, expected)


def test_strengths_of_merged_loras_are_given_in_one_way(done: Workbench, tmp_path: Path) -> None:
    """Behind the names of files, as everywhere, or by --multiplier; and what is lost by rounding is told."""
    words, lora = ("merge", "--out"), done.root / LORA
    said = done.does(*words, tmp_path / "a.safetensors", "--lora", f"{lora}:0.5")
    done.does(*words, tmp_path / "b.safetensors", "--lora", lora, "--multiplier", "0.5")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert "; rounding changes the merged weights by " in said.err
    assert said.err.rstrip().endswith(" of their norm")
    exact = done.does(*words, tmp_path / "c.safetensors", "--lora", lora, "--dtype", "fp32")
    assert exact.err.rstrip().endswith("; exact")
    both = ("--lora", f"{lora}:0.5", "--multiplier", "0.5")
    done.refuses(*words, tmp_path / "d.safetensors", *both, naming=("give them in one of these ways",))


def test_merge_into_a_named_transformer(done: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a project, and the bytes are those that a project gives."""
    wanted, words = tmp_path / "wanted.safetensors", ("merge", "--lora", done.root / LORA)
    done.does(*words, "--out", wanted)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    said = hv15(*words, "--dit", done.config["models"]["dit"], "--out", "merged.safetensors")
    assert said.code == 0, said.err
    assert Path("merged.safetensors").read_bytes() == wanted.read_bytes()
    is_a_refusal(hv15(*words, "--out", "other.safetensors"), ("config.yaml", "name the transformer with --dit"))
    for option in ("--shard-size", "--multiplier"):
        said = hv15(*words, "--dit", done.config["models"]["dit"], "--out", "other", option, "nan")
        assert f"argument {option}: 'nan': expected a finite number" in said.err


def test_merge_only_some_layers(done: Workbench) -> None:
    target, lora = done.root / "merged.safetensors", done.root / LORA
    words = ("--include", "img_attn_q", "txt_mlp", "--exclude_patterns", "fc2", "--lora-blocks", "1-9:0")
    done.does("merge", "--out", target, "--lora", lora, *words)
    base, merged = load_dit(done.config["models"]["dit"]).state_dict(), load_dit(target).state_dict()
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {f"double_blocks.0.{part}.weight" for part in ("img_attn_q", "txt_mlp.fc1")}
    with safe_open(target, framework="pt") as file:
        (told,) = json.loads(file.metadata()["hv15.merged"])
    assert told["strength_by"] == [{"blocks": [1, 9], "factor": 0.0}]
    words = ("merge", "--out", done.root / "other.safetensors", "--lora", lora, "--include", "qkv")
    done.refuses(*words, naming=("include_patterns: 'qkv' matches none of",))


def test_a_merged_checkpoint_tells_what_it_was_made_from(done: Workbench) -> None:
    target, base = done.root / "merged.safetensors", Path(done.config["models"]["dit"])
    done.does("merge", "--out", target, "--lora", done.root / LORA, "--multiplier", "0.5")
    with safe_open(target, framework="pt") as file:
        metadata = file.metadata()
    lora = {"file": "train.safetensors", "multiplier": 0.5, "fingerprint": model_fingerprint(done.root / LORA)}
    assert json.loads(metadata["hv15.merged"]) == [lora]
    assert json.loads(metadata["hv15.merged.base"]) == {"file": base.name, "fingerprint": model_fingerprint(base)}
    assert lora["fingerprint"] in hv15("show", target).out


def test_merge_refuses(done: Workbench) -> None:
    target = done.root / "merged.safetensors"
    words = ("merge", "--out", target, "--lora", done.root / LORA)
    done.refuses(*words, "--multiplier", "1", "--multiplier", "2", naming=("1 --lora but 2 --multiplier",))
    done.refuses(
        "merge", "--out", target, "--lora", done.root / "gone.safetensors", naming=("gone.safetensors", "no such file")
    )
    done.set(models={"dit": done.config["models"]["vae"]})
    done.refuses(*words, naming=("it looks like a VAE",))
    assert not target.exists()


def test_no_result_is_written_over_its_source(done: Workbench) -> None:
    done.refuses("merge", "--out", done.root / LORA, "--lora", done.root / LORA, naming=("is both read and written",))
    whole = (done.root / LORA).read_bytes()
    is_a_refusal(hv15("convert", done.root / LORA, done.root / "results/../results/train.safetensors"), ("both read",))
    assert (done.root / LORA).read_bytes() == whole


def test_verify_tells_what_would_happen_and_what_to_do(done: Workbench) -> None:
    said = hv15("verify", done.root / LORA, "--for", "comfyui")
    assert said.code == 1
    assert "ComfyUI has q, k and v in one matrix" in said.out
    assert "what to do: hv15 convert" in said.out
    said = hv15("verify", done.root / LORA, "--for", "musubi", "--keys")
    assert said.code == 0
    assert said.out.startswith("loads    lora_unet_double_blocks_0")
    is_a_refusal(hv15("verify", done.clips, "--for", "musubi"), (str(done.clips),))


def test_tools_for_loras(done: Workbench, tmp_path: Path) -> None:
    lora, out = done.root / LORA, tmp_path / "out.safetensors"
    said = hv15("lora", "add", f"{lora}:0.5", lora, "--out", out, "--rank", "2")
    assert "sum at rank 2" in said.err, said.err
    assert hv15("lora", "scale", out, "0.5", "--out", tmp_path / "half.safetensors").code == 0
    said = hv15("compare", out, tmp_path / "half.safetensors")
    assert said.out.splitlines()[-1 - 10].startswith("all") or "1.0000" in said.out
    assert hv15("lora", "resize", out, "--energy", "0.9", "--out", tmp_path / "small.safetensors").code == 0
    assert hv15("lora", "cast", out, "--dtype", "bf16", "--out", tmp_path / "cast.safetensors").code == 0
    assert hv15("lora", "split", out, "--blocks", "0", "--out", tmp_path).code == 0
    base, merged = Path(done.config["models"]["dit"]), tmp_path / "merged.safetensors"
    said = hv15("merge", done.root, "--lora", lora, "--out", merged, "--layout", "comfyui")
    assert said.code == 0, said.err
    said = hv15("lora", "extract", base, merged, "--rank", "2", "--out", tmp_path / "extracted.safetensors")
    assert "difference at rank 2: relative error" in said.err
    for words, naming in (
        (("lora", "resize", lora, "--out", out), "neither --rank nor --energy"),
        (("lora", "cast", lora, "--out", out), "--dtype is missing"),
        (("lora", "scale", lora, "2", "--out", out, "--only", "("), "--only"),
        (("lora", "add", lora, "--out", lora), "is both read and written"),
        (("lora", "add", lora, "--out", out, "--rank", "0"), "--rank 0"),
        (("compare", lora, base), "compare two files of one kind"),
    ):
        is_a_refusal(hv15(*words), (naming,))
    for words in ("3-x", "5-2", "0-99999999999"):
        assert "expected a block or a range" in hv15("lora", "split", out, "--blocks", words).err
    said = hv15("lora", "add", f"{lora}:much", "--out", tmp_path / "not.safetensors")
    assert said.code == 2
    assert "found 'much' behind the colon, expected a number" in said.err
    assert "'nan': expected a finite number" in hv15("lora", "scale", lora, "nan", "--out", out).err


def test_a_copy_is_exported_as_the_project_says(done: Workbench) -> None:
    out = done.root / "copy.safetensors"
    done.set(convert={"title": "My style", "trigger_words": ["mystyle"]})
    said = hv15("export", done.root, "--lora", done.root / LORA, "--out", out, "--to", "comfyui")
    assert "as comfyui loads them" in said.err, said.err
    with safe_open(out, "pt") as file:
        told = file.metadata()
    assert told["modelspec.title"] == "My style"
    assert told["modelspec.trigger_phrase"] == "mystyle"
    assert "hv15.config" not in told
