"""The sparse files are files: safetensors itself reads them, they have the real size, and no disk is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from hv15.models import DiTConfig
from hv15.models.dit_sizes import read_config
from hv15.models.weights.checkpoint import open_checkpoint
from tests.models import sparse_files
from tests.models.sparse_files import data_bytes, sparse_checkpoint

PARAMETERS = 8_326_608_160


def test_safetensors_reads_a_sparse_file(tmp_path: Path):
    path = sparse_checkpoint(tmp_path / "m.safetensors", sparse_files.official_dit(), {"note": "x"})
    assert path.stat().st_size == pytest.approx(2 * PARAMETERS, abs=1e6)
    assert path.stat().st_blocks * 512 < 2**20
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"note": "x"}
        tensor = file.get_tensor("double_blocks.53.img_mlp.fc1.weight")
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.bfloat16, (8192, 2048))
    assert not tensor[::1024].any()


def test_every_table_has_the_parameters_of_the_real_model():
    for shapes in (sparse_files.official_dit(), sparse_files.comfyui_dit("BF16"), sparse_files.diffusers_dit()):
        assert data_bytes(shapes) == 2 * PARAMETERS
    assert data_bytes(sparse_files.official_dit(meanflow=True)) == 2 * (PARAMETERS + 4_722_688)
    assert data_bytes(sparse_files.qwen()) == 2 * 8_292_166_656
    assert data_bytes(sparse_files.comfyui_fp8_dit("none")) < 1.05 * PARAMETERS


def test_folders_of_shards_open(tmp_path: Path):
    folder = sparse_files.diffusers_folder(tmp_path / "transformer", target_size=960, task_type="t2v")
    assert len(list(folder.glob("*.safetensors"))) == 4
    sizes = [file.stat().st_size for file in folder.glob("*.safetensors")]
    assert max(sizes) < 1.1 * min(sizes)
    assert read_config(open_checkpoint(folder)) == DiTConfig()
    assert len(open_checkpoint(sparse_files.qwen_folder(tmp_path / "qwen"))) == 729
