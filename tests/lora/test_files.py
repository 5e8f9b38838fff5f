"""LoRA files on disk: equal content gives equal bytes, and a bad file is named with what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hv15.errors import UserError
from hv15.lora import apply_lora, convert, convert_file, kohya_metadata, merge_lora, read_lora, save_lora
from tests.lora.samples import linears, random_lora, run
from tests.models.golden_dit import GOLDEN, TINY, golden_dit

LORA = random_lora({f"double_blocks.0.img_attn_{part}": (6, 5) for part in "qkv"}, rank=4, alpha=2.0)
METADATA = {f"hv15.{name}": name for name in ("config", "seed", "steps", "task", "versions", "dit", "shift")}


def test_what_is_written_is_read(tmp_path: Path):
    path = tmp_path / "new" / "lora.safetensors"
    save_lora(path, LORA, METADATA)
    tensors, metadata = read_lora(path)
    assert metadata == METADATA
    assert tensors.keys() == LORA.keys()
    assert all(torch.equal(tensors[key], tensor) for key, tensor in LORA.items())
    assert load_file(path).keys() == LORA.keys()  # any reader of the format takes it
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == METADATA
    assert list(path.parent.iterdir()) == [path]


def test_equal_content_gives_equal_bytes(tmp_path: Path):
    """The library's own writer puts the metadata in another order each time."""
    orders = [(LORA, METADATA), (dict(reversed(LORA.items())), dict(reversed(METADATA.items())))] * 4
    for number, (lora, metadata) in enumerate(orders):
        save_lora(tmp_path / f"{number}.safetensors", lora, metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.slow
def test_equal_content_gives_equal_bytes_in_every_process(tmp_path: Path):
    """safetensors' own writer puts the metadata in the order of a random hash."""
    code = (
        "import sys; from pathlib import Path; from hv15.lora import save_lora;"
        "from tests.lora.test_files import LORA, METADATA;"
        "save_lora(Path(sys.argv[1]), dict(reversed(LORA.items())), dict(reversed(METADATA.items())))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.safetensors"], check=True, cwd=Path(__file__).parents[2])
    save_lora(tmp_path / "b.safetensors", LORA, METADATA)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_dtype_is_for_the_matrices(tmp_path: Path):
    save_lora(tmp_path / "lora.safetensors", LORA, {}, dtype=torch.bfloat16)
    tensors, _ = read_lora(tmp_path / "lora.safetensors")
    assert {key.rpartition(".")[2]: tensor.dtype for key, tensor in tensors.items()} == {
        "weight": torch.bfloat16,
        "alpha": torch.float32,
    }


def test_a_dora_says_which_norms_its_magnitudes_are_relative_to(tmp_path: Path):
    """In a file all programs' name is used; in 16 bits, a magnitude would lose what it learned."""
    key = "lora_unet_double_blocks_0_img_attn_q"
    magnitude = torch.tensor([[1.001]] * 6)
    dora = {**LORA, f"{key}.base_dora_scale": magnitude}
    save_lora(tmp_path / "ours.safetensors", dora, METADATA, dtype=torch.bfloat16)
    plain = load_file(tmp_path / "ours.safetensors")
    assert plain.keys() == {*LORA, f"{key}.dora_scale"}
    assert torch.equal(plain[f"{key}.dora_scale"], magnitude)
    tensors, metadata = read_lora(tmp_path / "ours.safetensors")
    assert tensors.keys() == dora.keys()
    assert metadata == METADATA | {"hv15.dora_norm": "base"}
    save_lora(tmp_path / "twin.safetensors", tensors, metadata)
    assert load_file(tmp_path / "twin.safetensors").keys() == plain.keys()

    save_lora(tmp_path / "other.safetensors", plain, metadata)  # magnitudes with another meaning
    tensors, metadata = read_lora(tmp_path / "other.safetensors")
    assert tensors.keys() == plain.keys()
    assert metadata == METADATA


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_small_dtypes_are_cast_up(tmp_path: Path, dtype: torch.dtype):
    """bf16 holds every 8-bit number: only the size changes."""
    path, target = tmp_path / "fp8.safetensors", tmp_path / "comfy.safetensors"
    small = {key: tensor.to(dtype) if tensor.ndim else tensor for key, tensor in LORA.items()}
    save_file(small, path)
    tensors, _ = read_lora(path)
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim} == {torch.bfloat16}
    assert all(torch.equal(tensors[key].double(), tensor.double()) for key, tensor in small.items())
    convert_file(path, target)
    back, _ = convert(small, "kohya")
    assert all(torch.equal(back[key].double(), tensor.double()) for key, tensor in small.items())
    assert all(torch.equal(convert(read_lora(target)[0], "kohya")[0][key], back[key]) for key in back)


def test_small_dtypes_have_the_effect_of_their_numbers():
    small = {
        key: tensor.to(torch.float8_e4m3fn) if tensor.ndim else tensor
        for key, tensor in random_lora(linears(golden_dit()), rank=4).items()
    }
    for put in (apply_lora, merge_lora):
        one, other = golden_dit(), golden_dit()
        put(one, small)
        put(other, {key: tensor.float() for key, tensor in small.items()})
        assert torch.equal(run(one), run(other))


def test_a_dtype_that_no_tensor_has_is_named(tmp_path: Path):
    """4-bit floats, as a header may call them."""
    header = {
        "lora_unet_double_blocks_0_img_attn_q.lora_up.weight": {"dtype": "F4", "shape": [2, 2], "data_offsets": [0, 2]}
    }
    raw = json.dumps(header).encode()
    (tmp_path / "lora.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + b"00")
    with pytest.raises(UserError, match=r"lora\.safetensors: .*is in the number format F4, which is not supported"):
        read_lora(tmp_path / "lora.safetensors")


def broken(folder: Path, kind: str) -> Path:
    path = folder / "lora.safetensors"
    if kind == "pickle":
        path = folder / "lora.pt"
        torch.save(LORA, path)
    elif kind == "renamed pickle":
        torch.save(LORA, path)
    elif kind == "NaN":
        save_file(LORA | {"lora_unet_double_blocks_0_img_attn_q.lora_up.weight": torch.full((6, 4), torch.nan)}, path)
    elif kind == "model":
        return GOLDEN / "dit_weights.safetensors"
    elif kind == "other model":
        save_file({f"diffusion_model.blocks.0.self_attn.q.lora_{x}.weight": torch.ones(4, 4) for x in "AB"}, path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        save_file(LORA, path)
        path.write_bytes(path.read_bytes()[:-10])
    elif kind == "bad settings":
        save_file(LORA, path, {"lora_adapter_metadata": "{"})
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("folder", "a folder"),
        ("empty", "empty"),
        ("truncated", "truncated"),
        ("pickle", "pickle"),
        ("renamed pickle", "pickle"),
        ("NaN", "img_attn_q.lora_up.weight holds NaN"),
        ("model", "the HunyuanVideo 1.5 transformer, not a LoRA"),
        ("other model", "2 of 2 tensors belong to no part"),
        ("bad settings", "lora_adapter_metadata cannot be read: not JSON"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, kind: str, words: str):
    path = broken(tmp_path, kind)
    with pytest.raises(UserError, match=words) as error:
        read_lora(path)
    assert str(path) in error.value.message
    assert error.value.hint
    with pytest.raises(UserError, match=words):
        convert_file(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_diverged_lora_is_not_written(tmp_path: Path):
    spoilt: dict[str, Tensor] = LORA | {
        "lora_unet_double_blocks_0_img_attn_q.lora_up.weight": torch.full((6, 4), torch.inf)
    }
    with pytest.raises(UserError, match="holds NaN or infinity"):
        save_lora(tmp_path / "lora.safetensors", spoilt, {})
    assert not any(tmp_path.iterdir())


def test_files_there_and_back(tmp_path: Path):
    source, there, back = (tmp_path / f"{name}.safetensors" for name in ("source", "there", "back"))
    save_lora(source, LORA, METADATA)
    assert convert_file(source, there)["hv15.convert.to"] == "comfyui"
    assert all(key.startswith("diffusion_model.") for key in read_lora(there)[0])
    convert_file(there, back, "kohya")
    tensors, metadata = read_lora(back)
    assert all(torch.equal(tensors[key], tensor) for key, tensor in LORA.items())
    assert metadata.items() >= METADATA.items()


def test_a_failed_conversion_names_the_file(tmp_path: Path):
    source = tmp_path / "source.safetensors"
    save_lora(source, LORA | {"lora_unet_x.lora_up.weight": torch.ones(2, 2)}, {})
    with pytest.raises(UserError, match=r"source\.safetensors: LoRA: 1 of 10 tensors belong to no part"):
        convert_file(source, tmp_path / "out.safetensors")


def test_fields_that_other_tools_show():
    fields = kohya_metadata(rank=32, alpha=16.0, base=TINY, steps=100, learning_rate=1e-4)
    assert fields["modelspec.architecture"] == "hunyuan-video-1.5/lora"
    assert (fields["ss_network_dim"], fields["ss_network_alpha"], fields["ss_steps"]) == ("32", "16.0", "100")
    assert json.loads(fields["hv15.base_sizes"])["hidden_size"] == 48
    assert "ss_optimizer" not in fields
    assert all(isinstance(value, str) for value in fields.values())
