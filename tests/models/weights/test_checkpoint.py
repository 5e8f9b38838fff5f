"""Reading weights: what is refused, in which words, and that nothing else is."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hv15.errors import UserError
from hv15.models.weights.checkpoint import check_keys, load_into, open_checkpoint
from hv15.models.weights.writer import write_checkpoint

WEIGHTS = {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.ones(3, dtype=torch.bfloat16)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(WEIGHTS, tmp_path / "model.safetensors", metadata={"made": "here"})
    return tmp_path / "model.safetensors"


def meta_linear() -> nn.Linear:
    with torch.device("meta"):
        return nn.Linear(4, 3)


def test_header_tells_names_shapes_dtypes_and_metadata(file: Path):
    checkpoint = open_checkpoint(file)
    assert sorted(checkpoint) == ["bias", "weight"]
    assert (checkpoint.shape("weight"), checkpoint.dtype("weight")) == ((3, 4), torch.float32)
    assert (checkpoint.dtype("bias"), checkpoint.dtype_name("bias")) == (torch.bfloat16, "BF16")
    assert checkpoint.metadata == {"made": "here"}
    assert "weight" in checkpoint
    assert "nothing" not in checkpoint
    assert torch.equal(checkpoint.tensor("weight"), WEIGHTS["weight"])


def test_reading_headers_loads_no_torch(file: Path):
    code = (
        "import sys, pathlib, hv15.models, hv15.models.variants, hv15.models.weights.fingerprint, hv15.models.layouts\n"
        "from hv15.models.weights.checkpoint import open_checkpoint\n"
        "checkpoint = open_checkpoint(pathlib.Path(sys.argv[1]))\n"
        "assert checkpoint.shape('weight') == (3, 4)\n"
        "assert not {'torch', 'transformers', 'diffusers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, file], check=True)


def test_public_names_resolve():
    import hv15.models

    assert hv15.models.DiT.__name__ == "DiT"
    assert "load_vae" in dir(hv15.models)
    with pytest.raises(AttributeError, match="load_nothing"):
        hv15.models.load_nothing  # noqa: B018


def test_folder_with_one_file_or_with_shards(tmp_path: Path, file: Path):
    assert sorted(open_checkpoint(tmp_path)) == ["bias", "weight"]
    shards = tmp_path / "shards"
    shards.mkdir()
    for number, (key, value) in enumerate(WEIGHTS.items()):
        save_file({key: value}, shards / f"part-{number}.safetensors")
    weight_map = {key: f"part-{number}.safetensors" for number, key in enumerate(WEIGHTS)}
    index = shards / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    checkpoint = open_checkpoint(shards)
    assert torch.equal(checkpoint.tensor("bias"), WEIGHTS["bias"])

    index.write_text(json.dumps({"weight_map": weight_map | {"more": "part-1.safetensors"}}))
    with pytest.raises(UserError, match=r"1 tensors of .* in no shard, first more"):
        open_checkpoint(shards)
    (shards / "part-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"1 of 2 shards missing: part-1\.safetensors"):
        open_checkpoint(shards)
    index.write_text("[]")
    with pytest.raises(UserError, match="not a shard index"):
        open_checkpoint(shards)


def test_an_index_on_a_broken_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "model.safetensors.index.json").touch()
    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(UserError, match=r"index\.json: cannot be read: Input/output error"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"weight_map": {"a": "../other/model.safetensors"}}', "names a file of another folder: ../other"),
        ('{"weight_map": {"a": "/etc/model.safetensors"}}', "names a file of another folder: /etc"),
        ('{"weight_map": {"a": 1}}', "not a shard index"),
        ('{"weight_map": []}', "not a shard index"),
        ("{}", "not a shard index"),
        ("[" * 10**5, "not a shard index"),
        ("9" * 10**5, "not a shard index"),
    ],
)
def test_an_index_that_somebody_forged(content: str, words: str, tmp_path: Path):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=words):
        open_checkpoint(tmp_path)


def test_folders_without_one_clear_file(tmp_path: Path):
    with pytest.raises(UserError, match=r"without \.safetensors"):
        open_checkpoint(tmp_path)
    inner = tmp_path / "transformer"
    inner.mkdir()
    for name in ("a", "b"):
        save_file(WEIGHTS, inner / f"{name}.safetensors")
    with pytest.raises(UserError, match=r"2 candidates: a\.safetensors, b\.safetensors"):
        open_checkpoint(inner)
    with pytest.raises(UserError) as error:
        open_checkpoint(tmp_path)
    assert "transformer" in error.value.hint


def test_pickles_are_refused_whatever_their_name(tmp_path: Path):
    for suffix in (".pt", ".pth", ".ckpt", ".bin"):
        path = tmp_path / f"model{suffix}"
        torch.save(WEIGHTS, path)
        with pytest.raises(UserError, match="pickle"):
            open_checkpoint(path)
    (tmp_path / "model.pt").rename(tmp_path / "disguised.safetensors")
    with pytest.raises(UserError, match="pickle"):
        open_checkpoint(tmp_path / "disguised.safetensors")
    legacy = tmp_path / "legacy.safetensors"
    torch.save(WEIGHTS, legacy, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="pickle"):
        open_checkpoint(legacy)
    folder = tmp_path / "folder"
    folder.mkdir()
    torch.save(WEIGHTS, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickle"):
        open_checkpoint(folder)


def test_damaged_files_are_told_apart(file: Path):
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    cases = {
        b"": "is empty",
        content[:5]: "not a safetensors file|truncated",
        content[:40]: "truncated",
        content[: 8 + length]: "truncated",
        content[:-1]: rf"truncated: {len(content) - 1:,} bytes, but its header describes {len(content):,}",
        content + b"\0": "longer than",
        b"x" * 200: "not a safetensors file",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "Git LFS pointer",
        content[:8] + b"{" + b"?" * (length - 1) + content[8 + length :]: "header cannot be read",
        content.replace(b'"F32"', b'"F64"'): "damaged header: weight is F64",
    }
    for damaged, message in cases.items():
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            open_checkpoint(file)
    file.unlink()
    with pytest.raises(UserError, match="no such file"):
        open_checkpoint(file)


def test_a_header_of_any_length_is_no_pickle(tmp_path: Path):
    """A length of 640 = 0x0280 starts with the bytes of a pickle."""
    path = tmp_path / "model.safetensors"
    for padding in range(400, 520):
        save_file(WEIGHTS, path, metadata={"note": "x" * padding})
        if path.read_bytes()[:2] == b"\x80\x02":
            open_checkpoint(path)
            return
    pytest.fail("no such header was made")


def test_load_into_fills_freezes_and_casts(file: Path):
    linear = meta_linear().train()
    load_into(linear, open_checkpoint(file).tensors(), dtype=torch.float16)
    assert linear.weight.dtype == linear.bias.dtype == torch.float16
    assert torch.equal(linear.weight, WEIGHTS["weight"].half())
    assert not linear.weight.requires_grad
    assert not linear.training
    kept = meta_linear()
    load_into(kept, WEIGHTS)
    assert kept.bias.dtype == torch.bfloat16


def test_load_into_fills_buffers_and_keeps_integers():
    with torch.device("meta"):
        norm = nn.BatchNorm1d(2)
    load_into(norm, nn.BatchNorm1d(2).state_dict(), dtype=torch.bfloat16)
    assert norm.running_mean.dtype == torch.bfloat16
    assert norm.num_batches_tracked.dtype == torch.int64


def test_load_into_is_strict():
    with pytest.raises(UserError, match=r"^here: .*1 of 2 .* missing, first bias; 1 of 2 .* unexpected, first b\n"):
        load_into(meta_linear(), {"weight": WEIGHTS["weight"], "b": WEIGHTS["bias"]}, where="here")
    with pytest.raises(UserError, match=r"weight is \[4, 3\] instead of \[3, 4\]"):
        load_into(meta_linear(), {"weight": torch.zeros(4, 3), "bias": torch.zeros(3)})
    check_keys(["a"], ["a"], "here")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_load_into_refuses_what_is_not_finite(value: float):
    bias = torch.zeros(3)
    bias[1] = value
    with pytest.raises(UserError, match="here: bias holds NaN or infinity"):
        load_into(meta_linear(), {"weight": WEIGHTS["weight"], "bias": bias}, where="here")


def test_load_into_refuses_what_overflows_when_cast():
    with pytest.raises(UserError, match="weight holds NaN or infinity"):
        load_into(meta_linear(), {"weight": torch.full((3, 4), 1e6), "bias": torch.zeros(3)}, dtype=torch.float16)


def test_large_tensors_are_sampled_in_every_column():
    """A column of NaN in a weight of 2048 x 2048 is found, although each row has an even number of elements."""
    with torch.device("meta"):
        linear = nn.Linear(2048, 2048, bias=False)
    weight = torch.zeros(2048, 2048)
    weight[:, 1234] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        load_into(linear, {"weight": weight})


def test_written_files_are_what_safetensors_reads(tmp_path: Path):
    tensors = {**WEIGHTS, "count": torch.arange(5), "empty": torch.zeros(0, 4), "scalar": torch.tensor(2.5)}
    path = tmp_path / "sub" / "model.safetensors"
    write_checkpoint(path, tensors, tensors.__getitem__, {"b": "2", "a": "1"})
    checkpoint = open_checkpoint(path)
    assert checkpoint.metadata == {"a": "1", "b": "2"}
    for key, tensor in tensors.items():
        assert torch.equal(checkpoint.tensor(key), tensor)
        assert checkpoint.dtype(key) == tensor.dtype
    again = path.with_name("again.safetensors")
    write_checkpoint(again, dict(reversed(tensors.items())), tensors.__getitem__, {"a": "1", "b": "2"})
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="described"):
        write_checkpoint(again, {"x": torch.zeros(2)}, lambda _: torch.zeros(3), {})
    assert again.read_bytes() == path.read_bytes()
    assert sorted(path.parent.iterdir()) == [again, path]
