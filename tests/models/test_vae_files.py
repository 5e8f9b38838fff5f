"""Loading and saving the VAE: both published layouts, strictly, and files that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hv15.errors import UserError
from hv15.models.vae import VAE, VAEConfig, load_vae, save_vae
from hv15.models.vae_layouts import VAELayout, detect_vae_layout, name_in, read_config
from hv15.models.weights.checkpoint import open_checkpoint
from tests.models.golden_vae import CONFIG, GOLDEN, KEYS, golden_vae, golden_weights, pixels

LAYOUTS: list[VAELayout] = ["official", "diffusers"]
NAMES = json.loads((KEYS / "map_official_to_diffusers.json").read_text())["vae"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[VAELayout, Path]:
    """The golden weights as one file of each layout; the diffusers names come from the published table."""
    folder = tmp_path_factory.mktemp("vae")
    weights = golden_weights()
    save_file(weights, folder / "official.safetensors")
    save_file({NAMES[key]: value for key, value in weights.items()}, folder / "diffusers.safetensors")
    return {layout: folder / f"{layout}.safetensors" for layout in LAYOUTS}


def rewritten(source: Path, target: Path, change: dict[str, Tensor | None]) -> Path:
    """A copy of a file with tensors added, replaced or (None) left out."""
    tensors = {**load_file(source), **change}
    save_file({key: value for key, value in tensors.items() if value is not None}, target)
    return target


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_key_and_shape_at_full_size(layout: VAELayout):
    published = json.loads((KEYS / f"keys_{layout}_vae.json").read_text())["keys"]
    with torch.device("meta"):
        state = VAE().state_dict()
    assert {name_in(layout, key): list(value.shape) for key, value in state.items()} == published


def test_names_are_those_of_the_published_table():
    assert {key: name_in("diffusers", key) for key in NAMES} == NAMES
    assert len(NAMES) == 218


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sizes_of_the_real_model_are_read_from_a_header(layout: VAELayout, tmp_path: Path):
    """A sparse file of the real size, 5 GB, of which only the header is read."""
    published = json.loads((KEYS / f"keys_{layout}_vae.json").read_text())["keys"]
    header, end = {}, 0
    for key, shape in published.items():
        start, end = end, end + 4 * torch.Size(shape).numel()
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    with (tmp_path / "vae.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + end)
    checkpoint = open_checkpoint(tmp_path / "vae.safetensors")
    assert detect_vae_layout(checkpoint) == layout
    assert read_config(checkpoint, layout) == VAEConfig()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_load(files: dict[VAELayout, Path], layout: VAELayout):
    vae = load_vae(files[layout])
    assert vae.config == CONFIG
    assert not vae.training
    assert not any(parameter.requires_grad for parameter in vae.parameters())
    expected = golden_vae().requires_grad_(False)
    assert torch.equal(vae.encode(pixels(5, 32, 32)), expected.encode(pixels(5, 32, 32)))


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("vae.safetensors", "official"),
        ("vae", "diffusers"),
        pytest.param("vae.safetensors", "diffusers", marks=pytest.mark.slow),
        pytest.param("vae", "official", marks=pytest.mark.slow),
    ],
)
def test_saved_is_loaded(tmp_path: Path, layout: VAELayout, name: str):
    config = VAEConfig(block_out_channels=(8, 16, 32, 64, 64), layers_per_block=1)
    vae = VAE(config)
    save_vae(vae, tmp_path / name, layout=layout)
    loaded = load_vae(tmp_path / name)
    assert loaded.config == config
    assert loaded.state_dict().keys() == vae.state_dict().keys()
    assert all(torch.equal(value, vae.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_a_saved_folder_is_read_by_diffusers(tmp_path: Path):
    from diffusers import AutoencoderKLHunyuanVideo15

    vae = golden_vae().requires_grad_(False)
    save_vae(vae, tmp_path / "vae", layout="diffusers")
    theirs = AutoencoderKLHunyuanVideo15.from_pretrained(tmp_path / "vae")
    vae, theirs, clip = vae.double(), theirs.double(), pixels(5, 32, 32).double()
    with torch.no_grad():
        torch.testing.assert_close(vae.encode(clip), theirs.encode(clip).latent_dist.mode(), atol=1e-12, rtol=0)
    assert theirs.config.scaling_factor == 1.03682


def test_a_folder_written_by_diffusers_is_read(tmp_path: Path):
    from diffusers import AutoencoderKLHunyuanVideo15

    theirs = AutoencoderKLHunyuanVideo15(block_out_channels=(4, 8, 16, 32, 32), latent_channels=2, layers_per_block=2)
    theirs.save_pretrained(tmp_path / "vae")
    vae = load_vae(tmp_path / "vae")
    assert vae.config == CONFIG
    theirs_state = theirs.state_dict()
    assert all(torch.equal(value, theirs_state[name_in("diffusers", key)]) for key, value in vae.state_dict().items())


def test_dtype(files: dict[VAELayout, Path], tmp_path: Path):
    assert load_vae(files["official"], dtype=torch.float16).dtype == torch.float16
    save_vae(golden_vae(), tmp_path / "half.safetensors", dtype=torch.bfloat16)
    assert load_vae(tmp_path / "half.safetensors").dtype == torch.bfloat16
    assert load_vae(tmp_path / "half.safetensors", dtype=torch.float32).dtype == torch.float32


def test_equal_weights_give_equal_bytes(tmp_path: Path):
    for name in ("a", "b"):
        save_vae(golden_vae(), tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan(files: dict[VAELayout, Path], tmp_path: Path, layout: VAELayout):
    key = name_in(layout, "decoder.mid.block_1.norm1.gamma")
    broken = rewritten(files[layout], tmp_path / "nan.safetensors", {key: torch.full((32, 1, 1, 1), torch.nan)})
    with pytest.raises(UserError, match="NaN"):
        load_vae(broken)


def test_truncated(files: dict[VAELayout, Path], tmp_path: Path):
    short = tmp_path / "short.safetensors"
    short.write_bytes(files["official"].read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"short\.safetensors: truncated"):
        load_vae(short)


def test_missing_file_and_pickle(tmp_path: Path):
    with pytest.raises(UserError, match="no such file"):
        load_vae(tmp_path / "none.safetensors")
    (tmp_path / "vae.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match="pickle"):
        load_vae(tmp_path / "vae.pt")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_and_unexpected_tensors_are_named_as_in_the_file(
    files: dict[VAELayout, Path], tmp_path: Path, layout: VAELayout
):
    key = name_in(layout, "encoder.mid.attn_1.q.bias")
    broken = rewritten(files[layout], tmp_path / "broken.safetensors", {key: None, "extra.weight": torch.ones(1)})
    with pytest.raises(UserError, match="1 of 218 tensors missing") as caught:
        load_vae(broken)
    assert key in str(caught.value)
    assert "extra.weight" in str(caught.value)


def test_a_tensor_that_tells_a_size_is_missing(files: dict[VAELayout, Path], tmp_path: Path):
    change = {"encoder.conv_in.conv.weight": None}
    with pytest.raises(UserError, match=r"encoder\.conv_in\.conv\.weight is missing"):
        load_vae(rewritten(files["official"], tmp_path / "a.safetensors", change))


@pytest.mark.parametrize("tensor", [torch.ones(()), torch.ones(0, 4, 3, 3, 3)], ids=["scalar", "empty"])
@pytest.mark.parametrize("key", ["encoder.down.0.downsample.conv.conv.weight", "encoder.down.4.block.0.norm1.gamma"])
def test_a_tensor_that_tells_a_size_has_all_its_dimensions(
    files: dict[VAELayout, Path], tmp_path: Path, key: str, tensor: Tensor
):
    with pytest.raises(UserError, match=r"has the shape \[.*\], expected \d dimensions above 0"):
        load_vae(rewritten(files["official"], tmp_path / "a.safetensors", {key: tensor}))


def test_sizes_that_contradict_each_other(files: dict[VAELayout, Path], tmp_path: Path):
    change = {"encoder.down.1.block.0.norm1.gamma": torch.ones(12, 1, 1, 1)}
    with pytest.raises(UserError, match="sizes of the VAE"):
        load_vae(rewritten(files["official"], tmp_path / "a.safetensors", change))
    change = {"decoder.mid.block_1.norm1.gamma": torch.ones(8, 1, 1, 1)}
    with pytest.raises(UserError, match="another shape"):
        load_vae(rewritten(files["official"], tmp_path / "b.safetensors", change))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ({"block_out_channels": (8, 16, 32, 64), "ffactor_spatial": 8}, "4 levels, of which 3 halve .* and 2 the"),
        ({"block_out_channels": (8, 8, 16, 32, 64, 64), "ffactor_spatial": 32}, "6 levels, of which 5 halve .* and 2"),
        ({"block_out_channels": (8, 16, 32, 64, 64), "ffactor_temporal": 8}, "5 levels, of which 4 halve .* and 3 the"),
    ],
)
def test_other_levels_are_refused(tmp_path: Path, layout: VAELayout, sizes: dict[str, Any], found: str):
    save_vae(
        VAE(VAEConfig(layers_per_block=1, latent_channels=4, **sizes)), tmp_path / "vae.safetensors", layout=layout
    )
    with pytest.raises(UserError, match=rf"vae\.safetensors: a VAE of {found}") as caught:
        load_vae(tmp_path / "vae.safetensors")
    assert "set models.vae to the vae/ folder" in caught.value.hint


@pytest.mark.parametrize("level", [0, 1, 2, 3, 4])
def test_a_missing_level_is_refused(files: dict[VAELayout, Path], tmp_path: Path, level: int):
    """Also for a file whose last level halves: no next level shows its sizes."""
    gone = {key: None for key in golden_weights() if key.startswith(f"encoder.down.{level}.")}
    with pytest.raises(UserError, match=rf"a VAE of {level} levels|looks like the VAE of another model"):
        load_vae(rewritten(files["official"], tmp_path / "short.safetensors", gone))


def test_another_size_than_asked_for(files: dict[VAELayout, Path]):
    with pytest.raises(UserError, match="another shape"):
        load_vae(files["official"], config=VAEConfig(latent_channels=4, block_out_channels=(4, 8, 16, 32, 32)))


@pytest.mark.parametrize(
    ("keys", "looks"),
    [
        (["double_blocks.0.img_attn_q.weight"], "transformer"),
        (["encoder.down_blocks.0.resnets.0.norm1.weight", "decoder.conv_in.conv.weight"], "the VAE of another model"),
        (["some.thing"], "unknown"),
    ],
)
def test_another_model(tmp_path: Path, keys: list[str], looks: str):
    save_file({key: torch.ones(2) for key in keys}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=looks):
        load_vae(tmp_path / "other.safetensors")


def test_the_golden_config_is_found_in_its_weights():
    assert (GOLDEN / "vae_config.json").is_file()
    assert CONFIG.block_out_channels == (4, 8, 16, 32, 32)
