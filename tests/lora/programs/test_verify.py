"""What `hv15 verify` counts as right, and what it advises."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hv15.choices import LoRAProgram
from hv15.errors import UserError
from hv15.lora.programs.verify import verify

Q = "double_blocks.0.img_attn_q"
TO_Q = "transformer.transformer_blocks.0.attn.to_q"
LORA = {"lora_A.weight": torch.ones(2, 8), "lora_B.weight": torch.ones(8, 2)}


def written(folder: Path, module: str, **parts: torch.Tensor) -> Path:
    path = folder / "lora.safetensors"
    save_file({f"{module}.{part.replace('__', '.')}": tensor for part, tensor in (LORA | parts).items()}, path)
    return path


@pytest.mark.parametrize(("alpha", "right"), [(2.0, True), (1.0, False)])
def test_an_alpha_that_changes_nothing_may_be_dropped(tmp_path: Path, alpha: float, right: bool) -> None:
    found = verify(written(tmp_path, TO_Q, alpha=torch.tensor(alpha)), "diffusers")
    assert found.is_right == right
    assert found.counts() == ({"dropped": 1, "loads": 2} if right else {"wrong": 2, "dropped": 1})


@pytest.mark.parametrize(
    ("module", "program", "part", "words"),
    [
        (Q, "comfyui", "alpha", "hv15 convert {path} lora.comfyui.safetensors --to comfyui"),
        (Q, "diffusers", "lokr_w1", "--to diffusers --svd-rank 64"),
        (Q, "musubi", "dora_scale", "--to kohya --base TRANSFORMER"),
        (
            "blocks.0.cross_attn.q",
            "comfyui",
            "alpha",
            "0.cross_attn.q is none of its layers; it looks like a LoRA for Wan",
        ),
    ],
)
def test_what_to_do(tmp_path: Path, module: str, program: LoRAProgram, part: str, words: str) -> None:
    path = written(tmp_path, module, **{part: torch.ones(()) if part == "alpha" else torch.ones(8, 1)})
    assert words.format(path=path) in (verify(path, program).advice() or "")


def test_no_lora_at_all(tmp_path: Path) -> None:
    save_file({"some.bias": torch.ones(2)}, tmp_path / "a.safetensors")
    found = verify(tmp_path / "a.safetensors", "comfyui")
    assert found.counts() == {"dropped": 1}
    assert found.advice() == "use a LoRA for HunyuanVideo 1.5: this file holds no LoRA; it looks like an unknown model"
    save_file({"decoder.conv_in.conv.bias": torch.ones(2)}, tmp_path / "a.safetensors")
    advice = verify(tmp_path / "a.safetensors", "musubi").advice() or ""
    assert advice.endswith("this file holds no LoRA; it looks like a VAE")
    save_file({"double_blocks.0.img_mlp.fc1.weight": torch.ones(2)}, tmp_path / "a.safetensors")
    advice = verify(tmp_path / "a.safetensors", "official").advice() or ""
    assert advice.endswith("this file holds no LoRA; it looks like the HunyuanVideo 1.5 transformer")
    with pytest.raises(UserError, match="a folder; expected a LoRA file"):
        verify(tmp_path, "diffusers")
    save_file({}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="without tensors"):
        verify(tmp_path / "a.safetensors", "comfyui")


def test_the_command_that_it_advises_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "it's mine; rm -r *"
    folder.mkdir()
    path = written(folder, Q)
    words = shlex.split(verify(path, "comfyui").advice() or "")
    assert words == ["hv15", "convert", str(path), "lora.comfyui.safetensors", "--to", "comfyui"]


@pytest.mark.parametrize(
    ("module", "program"), [(TO_Q, "diffusers"), ("diffusion_model.double_blocks.0.img_attn.proj", "comfyui")]
)
def test_matrices_that_do_not_fit_together_stop_a_program(tmp_path: Path, module: str, program: LoRAProgram) -> None:
    found = verify(written(tmp_path, module, lora_B__weight=torch.ones(8, 3)), program)
    assert found.counts() == {"stops": 2}
    assert all("3" in verdict.why and "2" in verdict.why for verdict in found.by_verdict())
    assert (found.advice() or "").startswith("export it again")
