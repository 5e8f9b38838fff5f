"""Which layers a training chooses, with which ranks and shapes, and what it refuses in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hv15.choices import PublishedLayout
from hv15.config.training.network import NetworkSettings
from hv15.errors import UserError
from hv15.lora import LoRANetwork, convert, save_lora
from hv15.lora.fit import check_network_weights
from hv15.lora.publishing import check_formats, written_numbers
from hv15.lora.sizes import AdapterKind, NetworkSizes, network_sizes
from hv15.models import DiT, DiTConfig
from tests.lora.samples import kohya, linears, random_lora
from tests.lora.test_branches import KINDS
from tests.models.golden_dit import TINY, golden_dit

REAL = DiTConfig()


def sizes(config: DiTConfig = TINY, weights: Path | None = None, **options: Any) -> NetworkSizes:
    return network_sizes(config, NetworkSettings(**{"network_dim": 4, "network_alpha": 2.0, **options}), weights)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_those_of_the_network(kind: str):
    """Of some blocks of the real model, without data."""
    given, config = KINDS[kind], replace(REAL, num_blocks=3)
    found = sizes(config, network_type=given.type, lokr_factor=given.factor, lokr_full_matrix=given.full_matrix)
    with torch.device("meta"):
        dit = DiT(config)
        network = LoRANetwork(dit, rank=found.ranks, alpha=found.alphas, kind=found.kind)
    assert found.kind == given
    assert network.module_names == list(found.layers) == list(linears(dit))
    assert network.num_parameters == found.parameters == sum(rows * columns for rows, columns in found.matrices)
    tensors = {key: tuple(value.shape) for key, value in network.state_dict().items() if value.ndim}
    expected = {
        f"{kohya(layer)}.{part}": shape for layer in found.layers for part, shape in found.shapes(layer).items()
    }
    assert tensors == expected


@pytest.mark.parametrize(
    ("options", "count", "first"),
    [
        ({"layers": "attention"}, 54 * 8, "img_attn_q"),
        ({"layers": "mlp"}, 54 * 4, "img_mlp.fc1"),
        ({"layers": "no_modulation"}, 54 * 12, "img_attn_q"),
        ({"layer_blocks": [10, 12]}, 3 * 14, "img_mod.linear"),
        ({"layers": "mlp", "layer_blocks": [0, 0], "exclude_patterns": ["txt"]}, 2, "img_mlp.fc1"),
    ],
)
def test_groups_of_layers(options: dict[str, Any], count: int, first: str):
    layers = list(sizes(REAL, **options).layers)
    block = options.get("layer_blocks", [0])[0]
    assert (len(layers), layers[0]) == (count, f"double_blocks.{block}.{first}")


def test_the_first_pattern_gives_rank_and_alpha():
    found = sizes(
        network_dim_patterns={"0\\.img_attn_q": 16, "img_attn": 8, "_mod": 1}, network_alpha_patterns={"txt_": 1.5}
    )
    assert found.ranks["double_blocks.0.img_attn_q"] == 16
    assert found.ranks["double_blocks.1.img_attn_q"] == found.ranks["double_blocks.0.img_attn_k"] == 8
    assert found.ranks["double_blocks.1.txt_mod.linear"] == 1
    assert found.ranks["double_blocks.1.txt_attn_q"] == 4
    assert {found.alphas[name] for name in found.layers if "txt_" in name} == {1.5}
    assert found.alphas["double_blocks.0.img_attn_q"] == 2.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"network_dim_patterns": {"img_atn": 8}},
            r"^train\.network_dim_patterns: 'img_atn' matches none of the 28",
        ),
        ({"network_alpha_patterns": {"_mod": 8}, "layers": "mlp"}, r"network_alpha_patterns: '_mod' matches none of"),
        ({"network_dim_patterns": {"attn": 8, "img_attn": 2}}, r"'img_attn' has no effect: earlier patterns"),
        ({"include_patterns": ["_mod"], "layers": "attention"}, r"include_patterns: '_mod' matches none of the 16"),
        ({"layer_blocks": [1, 2]}, r"^train\.layer_blocks: \[1, 2\], but the transformer's blocks are 0 to 1"),
        (
            {"network_dim": 64},
            r"^train\.network_dim: rank 64 of double_blocks\.0\.img_mod\.linear is above .* side, 48",
        ),
        ({"network_dim_patterns": {"mlp": 49}}, r"^train\.network_dim_patterns: rank 49 of .*img_mlp\.fc1 is above"),
        ({"network_dim_patterns": {"(.+)+@": 4}}, r"network_dim_patterns: '\(\.\+\)\+@' (is not usable|matches none)"),
    ],
)
def test_what_has_no_effect_or_no_place_is_refused(options: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words) as error:
        sizes(**options)
    assert error.value.hint


def test_a_whole_w2_has_no_rank():
    assert sizes(network_type="lokr", lokr_full_matrix=True, network_dim=4096).kind.full_matrix


# -- from a file ----------------------------------------------------------------------------------------------------


def written(path: Path, kind: str, layout: Any = "kohya") -> tuple[Path, NetworkSizes]:
    """A file of some layers with different ranks and alphas."""
    given = KINDS[kind]
    names = [name for name in linears(golden_dit()) if "1.txt" in name or name.endswith("mlp.fc1")]
    ranks = {name: 1 + index % 3 for index, name in enumerate(names)}
    alphas = {name: 0.5 + index for index, name in enumerate(names)}
    network = LoRANetwork(golden_dit(), rank=ranks, alpha=alphas, kind=given)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    file = path / "start.safetensors"
    save_lora(file, *convert(network.state_dict(), layout))
    model = linears(golden_dit())
    layers = {name: (model[name].out_features, model[name].in_features) for name in names}
    return file, NetworkSizes(layers, ranks, alphas, given)


def options_of(kind: AdapterKind) -> dict[str, Any]:
    return {"network_type": kind.type, "lokr_factor": kind.factor, "lokr_full_matrix": kind.full_matrix}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lokr, full"])
def test_ranks_and_alphas_from_a_file(tmp_path: Path, kind: str):
    file, expected = written(tmp_path, kind)
    found = sizes(weights=file, network_weights=str(file), dim_from_weights=True, **options_of(KINDS[kind]))
    assert found == expected
    check_network_weights(file, found)
    other = sizes(include_patterns=["1.txt", r"mlp\.fc1"], **options_of(KINDS[kind]))
    with pytest.raises(UserError, match=r"has (rank \d, but train\.network_dim is 4|lokr.*other shapes)"):
        check_network_weights(file, other)


def test_a_file_whose_w2_is_whole(tmp_path: Path):
    file, expected = written(tmp_path, "lokr, full")
    found = sizes(weights=file, network_weights=str(file), dim_from_weights=True, network_type="lokr", lokr_factor=4)
    assert [found.shapes(layer) for layer in found.layers] == [expected.shapes(layer) for layer in expected.layers]
    check_network_weights(file, found)
    options = {**options_of(expected.kind), "lokr_factor": 2, "include_patterns": ["1.txt", r"mlp\.fc1"]}
    other = sizes(**options)
    with pytest.raises(UserError, match="the settings ask for other shapes"):
        check_network_weights(file, other)


@pytest.mark.parametrize(
    ("kind", "layout", "options", "words"),
    [
        ("lora", "comfyui", {}, r"start\.safetensors: .*attn.qkv is q, k and v in one matrix, so dim_from_weights"),
        ("loha", "kohya", {}, r"start\.safetensors: .* is a LoHa, but train\.network_type is lora"),
        ("lora", "kohya", {"network_type": "dora"}, r"is a LoRA, but train\.network_type is dora"),
    ],
)
def test_files_that_cannot_give_ranks(tmp_path: Path, kind: str, layout: str, options: dict[str, Any], words: str):
    file, _ = written(tmp_path, kind, layout)
    with pytest.raises(UserError, match=words) as error:
        sizes(weights=file, network_weights=str(file), dim_from_weights=True, **options)
    assert error.value.hint


def test_layers_outside_the_blocks_are_not_trained(tmp_path: Path):
    save_lora(tmp_path / "start.safetensors", random_lora({"time_in.mlp.0": (48, 256)}), {})
    with pytest.raises(UserError, match=r"time_in_mlp_0 is not a layer that hv15 trains"):
        sizes(weights=tmp_path / "start.safetensors", network_weights="start.safetensors", dim_from_weights=True)


# -- other programs' formats ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "formats", "words"),
    [
        (
            {"network_type": "loha"},
            ["comfyui", "official"],
            r"^convert\.formats: official cannot hold this loha: it hol",
        ),
        ({"network_type": "dora"}, ["diffusers"], r"^convert\.formats: diffusers cannot hold this dora: "),
        (
            {"network_type": "dora", "include_patterns": ["img_attn_q"]},
            ["comfyui"],
            r"comfyui cannot hold this dora: it has q, k and v in one matrix, but only double_blocks\.0\.img_attn_q of",
        ),
        ({"network_type": "lokr", "lokr_factor": 64}, ["diffusers"], r"this lokr: it has one factor for all layers"),
    ],
)
def test_formats_that_cannot_hold_it(options: dict[str, Any], formats: list[PublishedLayout], words: str):
    with pytest.raises(UserError, match=words) as error:
        check_formats(sizes(REAL, **options), formats)
    assert error.value.hint


def test_how_much_is_written():
    """A joined LoKr becomes a full difference; everything else has as many numbers as before."""
    lokr = LoRANetwork(golden_dit(), rank=2, alpha=2, kind=AdapterKind("lokr"))
    with torch.no_grad():
        for parameter in lokr.parameters():
            parameter.normal_()
    converted, _ = convert(lokr.state_dict(), "comfyui")
    numbers = sum(tensor.numel() for tensor in converted.values() if tensor.ndim)
    network = sizes(network_type="lokr", network_dim=2)
    assert written_numbers(network, "comfyui") == numbers
    assert written_numbers(network, "diffusers") == network.parameters == lokr.num_parameters
