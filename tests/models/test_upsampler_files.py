"""Loading the latent upsamplers: official folders, ComfyUI's single files, and files that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hv15.errors import UserError
from hv15.models.upsampler_files import load_upsampler, read_upsampler_config
from hv15.models.upsamplers import Upsampler720, Upsampler720Config, Upsampler1080, Upsampler1080Config
from hv15.models.weights.checkpoint import open_checkpoint
from tests.models import sparse_files
from tests.models.golden_sr import UPSAMPLER_720, UPSAMPLER_1080, upsampler_weights
from tests.models.sparse_files import sparse_checkpoint

CONFIGS = {"w720": UPSAMPLER_720, "w1080": UPSAMPLER_1080}


def written(path: Path, weights: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return path


def changed(path: Path, name: str, change: dict[str, Tensor | None]) -> Path:
    """A file with tensors added, replaced or (None) left out."""
    found = {**upsampler_weights(name), **change}
    return written(path, {key: value for key, value in found.items() if value is not None})


@pytest.mark.parametrize("name", CONFIGS)
def test_a_single_file_as_comfyui_has_it(tmp_path: Path, name: str) -> None:
    """In fp16, with the names of the official files or those that ComfyUI gives them."""
    weights = upsampler_weights(name)
    renamed = {key.replace(".nin_shortcut.", ".nin_shortcut.conv."): value.half() for key, value in weights.items()}
    for number, stored in enumerate((weights, renamed)):
        upsampler = load_upsampler(written(tmp_path / f"{number}.safetensors", stored))
        assert upsampler.config == CONFIGS[name]  # type: ignore[attr-defined]
        assert not upsampler.training
        assert not any(parameter.requires_grad for parameter in upsampler.parameters())
        found = upsampler.state_dict()
        assert found.keys() == weights.keys()
        assert all(torch.equal(value, weights[key]) and value.dtype == torch.float32 for key, value in found.items())


@pytest.mark.parametrize("adds", [False, True])
def test_an_official_folder(tmp_path: Path, adds: bool) -> None:
    """Sizes are read from the shapes, not from config.json, which alone tells whether the input is added."""
    written(tmp_path / "up" / "diffusion_pytorch_model.safetensors", upsampler_weights("w720"))
    (tmp_path / "up" / "config.json").write_text(json.dumps({"hidden_channels": 64, "global_residual": adds}))
    upsampler = load_upsampler(tmp_path / "up")
    assert upsampler.config == Upsampler720Config(32, 8, 2, adds)  # type: ignore[attr-defined]
    assert upsampler.resolution == "720p"


@pytest.mark.parametrize("network", [Upsampler720, Upsampler1080])
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_sizes_of_the_published_models_are_read_from_a_header(
    tmp_path: Path, network: type[Upsampler720 | Upsampler1080], dtype: str
) -> None:
    with torch.device("meta"):
        wanted = network()
    shapes: sparse_files.Shapes = {key: (dtype, tuple(value.shape)) for key, value in wanted.state_dict().items()}
    path = sparse_checkpoint(tmp_path / "up.safetensors", shapes)
    assert read_upsampler_config(open_checkpoint(path)) == wanted.config
    loaded = load_upsampler(path, device="meta")
    assert {value.device.type for value in loaded.state_dict().values()} == {"meta"}


def test_any_other_size_is_read(tmp_path: Path) -> None:
    for number, network in enumerate(
        (Upsampler720(Upsampler720Config(4, 12, 3)), Upsampler1080(Upsampler1080Config(4, (8, 4, 12), 1)))
    ):
        path = written(tmp_path / f"{number}.safetensors", network.state_dict())
        assert load_upsampler(path).config == network.config  # type: ignore[attr-defined]


def test_broken_files_are_refused(tmp_path: Path) -> None:
    bias = "blocks.1.block.4.conv.bias"
    with pytest.raises(UserError, match=r"latent upsampler to 720p: 1 of 16 tensors missing, first blocks\.1"):
        load_upsampler(changed(tmp_path / "a.safetensors", "w720", {bias: None}))
    with pytest.raises(UserError, match="1 of 17 tensors unexpected, first more"):
        load_upsampler(changed(tmp_path / "b.safetensors", "w720", {"more": torch.ones(1)}))
    with pytest.raises(UserError, match=r"blocks\.1\.block\.4\.conv\.bias is \[9\] instead of \[8\]"):
        load_upsampler(changed(tmp_path / "c.safetensors", "w720", {bias: torch.ones(9)}))
    with pytest.raises(UserError, match="holds NaN"):
        load_upsampler(changed(tmp_path / "d.safetensors", "w720", {bias: torch.full((8,), torch.nan)}))
    with pytest.raises(UserError, match="expected 5 dimensions"):
        load_upsampler(changed(tmp_path / "e.safetensors", "w720", {"in_conv.conv.weight": torch.ones(8)}))
    shape: dict[str, Tensor | None] = {"up.0.block.0.conv1.conv.weight": torch.ones(12, 16, 3, 3, 3)}
    with pytest.raises(UserError, match="the first must be a multiple of the 8 channels"):
        load_upsampler(changed(tmp_path / "f.safetensors", "w1080", shape))
    with pytest.raises(UserError, match="no such file"):
        load_upsampler(tmp_path / "none.safetensors")


def test_a_config_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "up" / "model.safetensors", upsampler_weights("w720"))
    (tmp_path / "up" / "config.json").write_text('{"global_residual": "yes"}')
    with pytest.raises(UserError, match="global_residual is 'yes', expected true or false"):
        load_upsampler(tmp_path / "up")


@pytest.mark.parametrize(
    ("key", "looks"),
    [("decoder.conv_in.conv.weight", "a VAE"), ("double_blocks.0.x", "transformer"), ("x", "an unknown model")],
)
def test_another_model_is_named(tmp_path: Path, key: str, looks: str) -> None:
    with pytest.raises(UserError, match=f"not a latent upsampler: it looks like .*{looks}") as error:
        load_upsampler(written(tmp_path / "x.safetensors", {key: torch.ones(1)}))
    assert "models.upsampler" in error.value.hint
