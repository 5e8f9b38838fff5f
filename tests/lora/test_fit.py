"""What headers tell of LoRA files, against what the model and the training themselves say."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hv15.config.training.network import NetworkSettings
from hv15.errors import UserError
from hv15.lora import LoRANetwork, convert, save_lora
from hv15.lora.fit import check_lora, check_network_weights
from hv15.lora.formats import PEFT_LAYOUTS
from hv15.lora.names import LORA_LAYOUTS
from hv15.lora.sizes import NetworkSizes, network_sizes, trainable_layers
from hv15.models import DiT, DiTConfig
from tests.lora.lycoris_files import DEPENDENT, UNUSABLE, USABLE, made, mostly_slow
from tests.lora.samples import linears, random_lora
from tests.models.golden_dit import TINY, golden_dit

ONLY_Q = ["img_attn_q$"]


def sizes(rank: int = 4, alpha: float = 2.0, include: list[str] | None = None) -> NetworkSizes:
    return network_sizes(TINY, options(rank, alpha, include))


def options(rank: int, alpha: float, include: list[str] | None = None, exclude: list[str] | None = None) -> Any:
    return NetworkSettings(
        network_dim=rank, network_alpha=alpha, include_patterns=include or (), exclude_patterns=exclude or ()
    )


def written(path: Path, lora: dict[str, Tensor], layout: str = "kohya") -> Path:
    save_lora(path / f"{layout}.safetensors", *convert(lora, layout))
    return path / f"{layout}.safetensors"


def training_takes(lora: dict[str, Tensor], network: NetworkSizes) -> bool:
    """What happens after everything is encoded."""
    trained = LoRANetwork(golden_dit(), rank=network.ranks, alpha=network.alphas)
    try:
        trained.load_state_dict(convert(lora, "kohya")[0])
    except UserError:
        return False
    return True


@pytest.mark.parametrize(
    "config",
    [pytest.param(DiTConfig(), marks=pytest.mark.slow), replace(TINY, mlp_ratio=2.5)],
    ids=["real", "tiny"],
)
def test_layers_are_those_of_the_model(config: DiTConfig):
    with torch.device("meta"):
        dit = DiT(config)
    layers = [(name, tuple(layer.weight.shape)) for name, layer in linears(dit).items()]
    assert list(trainable_layers(config).items()) == layers
    network = LoRANetwork(dit, rank=3, alpha=1.0, include=["attn", "mlp"], exclude=["txt"])
    sizes = network_sizes(config, options(3, 1.0, ["attn", "mlp"], ["txt"]))
    assert list(sizes.layers) == network.module_names
    assert sizes.parameters == network.num_parameters


@pytest.mark.parametrize(
    ("include", "exclude", "words"),
    [
        (["img_atn"], [], "include_patterns: 'img_atn' matches none of the 28"),
        ([], ["single_blocks"], "exclude_patterns: 'single_blocks' matches none"),
        ([r"blocks\.7\."], [], "matches none"),
        ([], ["."], "no module is left to train"),
    ],
)
def test_patterns_that_match_nothing(include: list[str], exclude: list[str], words: str):
    with pytest.raises(UserError, match=words):
        network_sizes(TINY, options(4, 4.0, include, exclude))


@pytest.mark.parametrize(
    ("alpha", "include", "layout"),
    [
        pytest.param(
            alpha,
            include,
            layout,
            marks=[] if layout == "kohya" or (alpha, include) in ((2.0, None), (1.7, ONLY_Q)) else [pytest.mark.slow],
        )
        for alpha in (2.0, 4.0, 1.7)
        for include in (None, ["attn"], ["attn_[qv]"], ONLY_Q, [r"blocks\.1"])
        for layout in LORA_LAYOUTS
    ],
)
def test_what_a_training_of_equal_settings_made_fits(
    tmp_path: Path, layout: str, include: list[str] | None, alpha: float
):
    network = sizes(alpha=alpha, include=include)
    lora = random_lora(network.layers, rank=4, alpha=alpha)
    if layout in PEFT_LAYOUTS:  # alpha is folded into up there, and is the rank from then on
        network = sizes(alpha=4.0, include=include)
    assert training_takes(convert(lora, layout)[0], network)
    path = written(tmp_path, lora, layout)
    check_network_weights(path, network)
    check_lora(path, TINY)


def test_one_lora_of_joined_q_k_and_v_fits(tmp_path: Path):
    """As diffusion-pipe trains it, without alpha: each of the three gets its rank."""
    name, draw = "diffusion_model.double_blocks.0.img_attn.qkv", torch.Generator().manual_seed(0)
    dense = {
        f"{name}.lora_A.weight": torch.randn(4, 48, generator=draw),
        f"{name}.lora_B.weight": torch.randn(144, 4, generator=draw),
    }
    network = sizes(alpha=4.0, include=[r"0\.img_attn_[qkv]$"])
    save_file(dense, tmp_path / "dense.safetensors")
    assert training_takes(dense, network)
    check_network_weights(tmp_path / "dense.safetensors", network)


def unfit(kind: str) -> tuple[dict[str, Tensor], NetworkSizes]:
    layers = linears(golden_dit())
    whole = random_lora(layers, rank=4, alpha=2.0)
    return {
        "other layers": (random_lora({"double_blocks.0.img_attn_q": (48, 48)}), sizes(include=["mlp"])),
        "fewer layers": (random_lora({"double_blocks.0.img_attn_q": (48, 48)}), sizes()),
        "more layers": (whole, sizes(include=ONLY_Q)),
        "other rank": (whole, sizes(rank=8)),
        "other alpha": (whole, sizes(alpha=4.0)),
        "other size": (random_lora({"double_blocks.0.img_attn_q": (64, 64)}), sizes(include=[r"0\.img_attn_q$"])),
        "LoHa": (made("loha")[0], sizes()),
        "no alpha": ({key: tensor for key, tensor in whole.items() if tensor.ndim}, sizes()),
    }[kind]


UNFIT = {
    "other layers": r"8 of 8 are missing, first double_blocks\.0\.img_mlp\.fc1; 1 are unexpected, first lora_",
    "fewer layers": r"27 of 28 are missing, first double_blocks\.0\.img_mod\.linear$",
    "more layers": r"selects: 26 are unexpected, first lora_unet_double_blocks_0_img_attn_k",
    "other rank": r"has rank 4, but train\.network_dim is 8",
    "other alpha": r"has alpha 2, but train\.network_alpha is 4",
    "other size": r"lora_down.weight \[4, 64\], .*, but the layer is \[48, 48\]",
    "LoHa": r"img_attn_k is a LoHa, but train\.network_type is lora \(",
    "no alpha": r"has alpha 4, but train\.network_alpha is 2",
}


@pytest.mark.parametrize("layout", ["kohya", pytest.param("comfyui", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", UNFIT)
def test_what_does_not_fit_is_told_before_anything_is_encoded(tmp_path: Path, kind: str, layout: str):
    lora, network = unfit(kind)
    assert not training_takes(lora, network)
    path = written(tmp_path, lora, layout)
    with pytest.raises(UserError) as error:
        check_network_weights(path, network)
    assert f"{path}: " in error.value.message
    assert error.value.hint
    if layout == "kohya":
        assert re.search(UNFIT[kind], error.value.message)


def test_an_alpha_that_is_no_number_is_damage(tmp_path: Path):
    lora = random_lora(sizes().layers)
    next(tensor for key, tensor in lora.items() if key.endswith(".alpha")).fill_(math.nan)
    save_file(lora, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match="has alpha nan\n  hint: the file is damaged"):
        check_network_weights(tmp_path / "lora.safetensors", sizes())


@pytest.mark.parametrize("kind", mostly_slow(DEPENDENT))
def test_a_training_does_not_go_on_from_what_depends_on_the_base(tmp_path: Path, kind: str):
    save_lora(tmp_path / "lora.safetensors", made(kind)[0], {})
    with pytest.raises(UserError, match=r"is an? (DoRA|GLoRA|OFT), but train\.network_type is lora \("):
        check_network_weights(tmp_path / "lora.safetensors", sizes())


@pytest.mark.parametrize("kind", UNUSABLE)
def test_unusable_kinds(tmp_path: Path, kind: str):
    path = tmp_path / "lora.safetensors"
    save_lora(path, made(kind)[0], {})
    for check in (lambda: check_network_weights(path, sizes()), lambda: check_lora(path, TINY)):
        with pytest.raises(UserError, match=r"lora\.safetensors: LoRA: the file holds .* which hv15 cannot use"):
            check()


@pytest.mark.parametrize("kind", mostly_slow(USABLE))
def test_files_that_can_act_on_a_model(tmp_path: Path, kind: str):
    path = tmp_path / "lora.safetensors"
    save_lora(path, made(kind)[0], {})
    check_lora(path, TINY)
    with pytest.raises(UserError, match=r"14 of 28 changed layers are not in this model, first double_blocks\.1"):
        check_lora(path, replace(TINY, num_blocks=1))
    with pytest.raises(
        UserError, match=r"changes (a weight of \[48, 48\]|48 rows of a weight), but the model's is \[32, 32\]"
    ):
        check_lora(path, replace(TINY, hidden_size=32, rope_dims=(4, 6, 6)))


def test_layers_outside_the_blocks_can_be_changed(tmp_path: Path):
    dit = golden_dit()
    check_lora(written(tmp_path, random_lora(linears(dit, inside="")), "official"), TINY)
    assert any(isinstance(module, nn.Linear) for module in dit.modules())


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("diffusion_model.blocks.0.self_attn.q", "Wan"),
        ("lora_unet_blocks_7_cross_attn_k", "Wan"),
        ("lora_unet_single_blocks_3_linear1", "HunyuanVideo 1.0 or Flux"),
        ("transformer.single_transformer_blocks.3.attn.to_q", "HunyuanVideo 1.0 or Flux"),
        ("diffusion_model.transformer_blocks.0.attn1.to_q", "LTX-Video or a diffusers U-Net"),
        ("lora_unet_transformer_blocks_0_img_mlp_net_2", "Qwen-Image"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in", "Stable Diffusion"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", "a text encoder"),
        ("something.else", None),
    ],
)
def test_another_model_is_named(tmp_path: Path, name: str, family: str | None):
    file = tmp_path / "other.safetensors"
    save_file({f"{name}.lora_{x}.weight": torch.ones(4, 4) for x in "AB"}, file)
    with pytest.raises(UserError, match=r"other\.safetensors: LoRA: 2 of 2 tensors belong to no part") as raised:
        check_lora(file, TINY)
    assert ("it looks like a LoRA" in raised.value.message) == (family is not None)
    assert family is None or family in raised.value.message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_alphas_are_read_in_every_number_format(tmp_path: Path, dtype: torch.dtype):
    lora = random_lora({"double_blocks.0.img_attn_q": (48, 48)}, alpha=2.5)
    lora = {key: tensor if tensor.ndim else tensor.to(dtype) for key, tensor in lora.items()}
    save_file(lora, tmp_path / "lora.safetensors")
    check_network_weights(tmp_path / "lora.safetensors", sizes(alpha=2.5, include=[r"0\.img_attn_q$"]))
    with pytest.raises(UserError, match=r"has alpha 2\.5"):
        check_network_weights(tmp_path / "lora.safetensors", sizes(include=[r"0\.img_attn_q$"]))


@pytest.mark.slow
def test_no_torch_is_needed(tmp_path: Path):
    path = written(tmp_path, random_lora(linears(golden_dit())), "comfyui")
    code = (
        "import sys; from pathlib import Path; from hv15.lora.fit import *; from hv15.lora.sizes import *;"
        "config = DiTConfig(hidden_size=48, num_heads=2, num_blocks=2, rope_dims=(4, 10, 10));"
        "settings = NetworkSettings(network_dim=4, network_alpha=2.0);"
        "check_network_weights(Path(sys.argv[1]), network_sizes(config, settings));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 0
