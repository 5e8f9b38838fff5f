"""Loading the transformer from files: layouts, sizes, and files that are something else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hv15.errors import UserError
from hv15.models import DiTConfig, load_dit, save_dit
from hv15.models.dit_files import checkpoint_dtype, merge_dit
from hv15.models.dit_sizes import layout_of, read_config
from hv15.models.layouts import writing_recipes
from hv15.models.weights.checkpoint import open_checkpoint
from tests.models.golden_dit import GOLDEN, TINY, golden_dit, key_table, tensors

OFFICIAL_CONFIG = {"rope_dim_list": [4, 10, 10], "rope_theta": 256}


def write(path: Path, state: dict[str, Tensor], config: object = OFFICIAL_CONFIG) -> Path:
    path.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in state.items()}, path / "model.safetensors")
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path / "model.safetensors"


def official() -> dict[str, Tensor]:
    return {key: value.clone() for key, value in tensors("dit_weights").items()}


@pytest.mark.parametrize("layout", ["official", "comfyui", "diffusers"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_each_layout_gives_the_same_model(tmp_path: Path, layout: str, prefix: str):
    state = official()
    made = {prefix + key: recipe.make(state.__getitem__) for key, recipe in writing_recipes(layout, state).items()}
    if prefix:
        made["vae.decoder.conv_in.weight"] = torch.zeros(3)  # a whole ComfyUI checkpoint holds other models, too
    path = write(tmp_path / "m", made)
    dit = load_dit(path)
    assert dit.config == TINY
    assert layout_of(open_checkpoint(path))[0] == layout
    assert all(torch.equal(value, state[key]) for key, value in dit.state_dict().items())
    assert not dit.training
    assert not any(parameter.requires_grad for parameter in dit.parameters())


@pytest.mark.parametrize("layout", ["official", "comfyui", "diffusers"])
def test_saved_and_loaded_is_the_same_to_the_bit(tmp_path: Path, layout: str):
    dit = golden_dit({key: value for key, value in tensors("dit_meanflow").items() if key.startswith("time_r_in.")})
    save_dit(dit, tmp_path / "m.safetensors", layout=layout)
    again = load_dit(tmp_path / "m.safetensors")
    assert again.config == dit.config == replace(TINY, meanflow=True)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in dit.state_dict().items())


def test_saving_over_the_file_that_is_loaded_keeps_the_model(tmp_path: Path):
    path = write(tmp_path / "m", official())
    dit = load_dit(path)
    save_dit(dit, path, dtype=torch.bfloat16)
    assert torch.equal(dit.final_layer.linear.weight, official()["final_layer.linear.weight"])
    assert load_dit(path).dtype == torch.bfloat16
    assert checkpoint_dtype(path) == torch.bfloat16


def test_unknown_layout_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(UserError, match="kohya"):
        save_dit(golden_dit(), tmp_path / "m.safetensors", layout="kohya")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("table", ["keys_official_dit", "keys_comfy_dit", "keys_diffusers_dit"])
def test_sizes_of_the_real_files_come_from_their_shapes(tmp_path: Path, table: str):
    """A sparse file with the real header: 16 GB that take no disk."""
    header, end = {}, 0
    for key, shape in key_table(table).items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    path = tmp_path / "real.safetensors"
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + end)
    assert path.stat().st_size > 16e9
    assert read_config(open_checkpoint(path)) == DiTConfig()
    assert checkpoint_dtype(path) == torch.bfloat16


def test_rope_axes_come_from_metadata_or_config_json(tmp_path: Path):
    assert load_dit(write(tmp_path / "a", official())).config == TINY
    diffusers_names = {"rope_axes_dim": [8, 8, 8], "rope_theta": 100}
    config = load_dit(write(tmp_path / "b", official(), diffusers_names)).config
    assert (config.rope_dims, config.rope_theta) == ((8, 8, 8), 100.0)
    assert load_dit(write(tmp_path / "c", official(), None), config=TINY).config == TINY
    with pytest.raises(UserError, match=r"no rope dims .* the 24 channels of a head") as error:
        load_dit(write(tmp_path / "d", official(), None))
    assert "rope_dim_list" in error.value.hint
    for number, wrong in enumerate(([4, 10, 12], [24], [5, 9, 10], 24, "x", [None])):
        with pytest.raises(UserError):
            load_dit(write(tmp_path / f"e{number}", official(), {"rope_dim_list": wrong}))
    broken = write(tmp_path / "f", official())
    broken.with_name("config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: not readable as JSON"):
        load_dit(broken)


def test_dtype_is_kept_or_cast(tmp_path: Path):
    path = write(tmp_path / "m", official())
    assert load_dit(path).dtype == torch.float32
    dit = load_dit(path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in dit.parameters()} == {torch.bfloat16}


def test_missing_unexpected_and_wrong_tensors_are_counted(tmp_path: Path):
    state = official()
    del state["double_blocks.1.txt_mlp.fc1.weight"], state["double_blocks.0.img_attn_k.bias"]
    state["double_blocks.1.extra"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"official.*: 2 of \d+ tensors missing, first double_blocks\.0\.img_attn_k"):
        load_dit(write(tmp_path / "a", state))
    state = official()
    state["double_blocks.1.img_attn_k.bias"] = torch.zeros(47)
    with pytest.raises(UserError, match=r"1 tensors of another shape: double_blocks\.1\.img_attn_k\.bias is \[47\]"):
        load_dit(write(tmp_path / "b", state))
    state = official()
    del state["txt_in.input_embedder.weight"]
    with pytest.raises(UserError, match=r"missing, first txt_in\.input_embedder\.weight"):
        load_dit(write(tmp_path / "c", state))


@pytest.mark.parametrize("key", ["double_blocks.1.img_attn_q.weight", "double_blocks.1.img_attn_k.bias"])
def test_a_tensor_of_another_shape_is_found_before_anything_is_merged(tmp_path: Path, key: str):
    state = official()
    state[key] = state[key][..., :-1]
    with pytest.raises(UserError, match=f"1 tensors of another shape: {re.escape(key)}"):
        merge_dit(write(tmp_path / "m", state), tmp_path / "merged.safetensors", [AddOne()])
    assert not (tmp_path / "merged.safetensors").exists()


class AddOne:
    """A change of one layer that claims to fit any size."""

    name = "one.safetensors"
    shapes: ClassVar[dict[str, tuple[int, int] | None]] = {"double_blocks.1.img_attn_q": None}

    def __call__(self, module: str, weight: Tensor) -> Tensor:
        return weight + torch.ones(48, 48)


def test_comfyui_messages_name_the_keys_of_the_file(tmp_path: Path):
    state = official()
    made = {key: recipe.make(state.__getitem__) for key, recipe in writing_recipes("comfyui", state).items()}
    del made["double_blocks.1.txt_attn_qkv.weight"]
    with pytest.raises(UserError, match=r"1 of \d+ tensors missing, first double_blocks\.1\.txt_attn_qkv\.weight"):
        load_dit(write(tmp_path / "m", made))


@pytest.mark.parametrize(
    "key",
    [
        "img_in.proj.weight",
        "double_blocks.0.img_attn_q_norm.weight",
        "double_blocks.0.img_mlp.fc1.weight",
        "final_layer.linear.weight",
        "byt5_in.fc1.weight",
        "txt_in.input_embedder.weight",
        "vision_in.proj.1.weight",
    ],
)
@pytest.mark.parametrize("shape", [(), (48,), (48, 9, 1), (0, 9), (0,)])
def test_a_tensor_that_tells_sizes_has_all_its_dimensions(tmp_path: Path, key: str, shape: tuple[int, ...]):
    state = {**official(), key: torch.zeros(shape)}
    with pytest.raises(UserError) as error:
        load_dit(write(tmp_path / "m", state))
    if key == "double_blocks.0.img_attn_q_norm.weight" and shape == (48,):
        return  # heads of 48 are a size like any other
    assert f"{key} has the shape {list(shape)}" in str(error.value)


@pytest.mark.parametrize(
    ("layout", "key", "shape"),
    [
        ("official", "double_blocks.1.txt_mlp.fc1.bias", ()),
        ("comfyui", "double_blocks.1.txt_attn_qkv.bias", ()),
        ("comfyui", "double_blocks.1.txt_attn_qkv.bias", (2,)),
        ("diffusers", "context_embedder.token_refiner.refiner_blocks.1.attn.to_k.weight", (48,)),
        ("diffusers", "norm_out.linear.bias", (5,)),
    ],
)
def test_tensors_that_cannot_be_cut_or_joined_are_named(tmp_path: Path, layout: str, key: str, shape: tuple[int, ...]):
    state = official()
    made = {name: recipe.make(state.__getitem__) for name, recipe in writing_recipes(layout, state).items()}
    assert key in made
    with pytest.raises(UserError, match=rf"another shape: .*{key} {re.escape(str(list(shape)))}"):
        load_dit(write(tmp_path / "m", {**made, key: torch.zeros(shape)}))


def test_nan_is_named(tmp_path: Path):
    state = official()
    state["double_blocks.1.img_mlp.fc1.weight"][3, 5] = torch.nan
    with pytest.raises(UserError, match=r"double_blocks\.1\.img_mlp\.fc1\.weight holds NaN"):
        load_dit(write(tmp_path / "m", state))


def test_other_models_are_refused_by_name(tmp_path: Path):
    with pytest.raises(UserError, match=r"not the HunyuanVideo 1\.5 transformer: it looks like a T5 or ByT5 encoder"):
        load_dit(GOLDEN / "byt5_tiny.safetensors")
    state = official()
    state["img_in.proj.weight"] = torch.zeros(48, 14, 1, 1, 1)
    with pytest.raises(UserError, match="takes 14 input channels, but t2v and i2v take 9"):
        load_dit(write(tmp_path / "sr", state))


def test_truncated_and_missing_files_are_refused(tmp_path: Path):
    path = write(tmp_path / "m", official())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated"):
        load_dit(path)
    with pytest.raises(UserError, match="no such file"):
        load_dit(tmp_path / "nothing.safetensors")


def test_saved_comfyui_file_has_the_fused_rows(tmp_path: Path):
    save_dit(golden_dit(), tmp_path / "m.safetensors", layout="comfyui")
    fused = load_file(tmp_path / "m.safetensors")["double_blocks.0.img_attn_qkv.weight"]
    assert torch.equal(fused[48:96], tensors("dit_weights")["double_blocks.0.img_attn_k.weight"])
