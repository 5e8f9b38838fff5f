"""Whatever a LoRA file holds in names, shapes, dtypes and settings of PEFT: it is read, or refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from hv15.config.training.network import NetworkSettings
from hv15.errors import UserError
from hv15.lora import apply_lora, convert, convert_file, merge_lora, read_lora
from hv15.lora.fit import check_lora, check_network_weights
from hv15.lora.names import LORA_LAYOUTS
from hv15.lora.sizes import network_sizes
from tests.models.golden_dit import TINY, golden_dit

NAMES = (
    "lora_unet_double_blocks_0_img_attn_q",
    "lora_unet_double_blocks_0_img_attn_qkv",
    "lora_unet_double_blocks_#_img_attn_q",
    "lora_unet_double_blocks_99999999999999999999_img_attn_q",
    "diffusion_model.double_blocks.0.img_attn.qkv",
    "transformer.transformer_blocks.0.attn.to_q",
    "transformer.norm_out.linear",
    "transformer.context_embedder.token_refiner.refiner_blocks.0.attn.to_q",
    "double_blocks.1.img_mlp.fc1",
    "lycoris_txt_in_individual_token_refiner_blocks_0_self_attn_qkv",
    "x",
    "",
)
GROUPS = (
    {"lora_down.weight": (2, 48), "lora_up.weight": (48, 2)},
    {"lora_A.default.weight": (2, 48), "lora_B.default.weight": (144, 2)},
    {f"hada_w{i}_{side}": shape for i in (1, 2) for side, shape in (("a", (48, 2)), ("b", (2, 48)))},
    {"lokr_w1": (6, 8), "lokr_w2": (8, 6)},
    {"lokr_w1_a": (6, 1), "lokr_w1_b": (1, 8), "lokr_w2_a": (8, 2), "lokr_w2_b": (2, 6)},
    {"diff": (48, 48)},
    {"oft_blocks": (12, 4, 4)},
    {"a1.weight": (48, 2), "a2.weight": (2, 48), "b1.weight": (48, 2), "b2.weight": (2, 48)},
)
EXTRA = ("alpha", "dora_scale", "lora_magnitude_vector", "rescale", "on_input", "weight", "diff_b", "lora_mid.weight")
DTYPES = (torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.bool)
SIDES = st.sampled_from((0, 1, 2, 4, 6, 8, 48, 144))


@st.composite
def files(draw: st.DrawFn) -> dict[str, Tensor]:
    """Groups that are nearly right: now and then another shape or dtype, a part more or less."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)):
        shapes |= {f"{name}.{part}": shape for part, shape in draw(st.sampled_from(GROUPS)).items()}
        for part in draw(st.lists(st.sampled_from(EXTRA), max_size=2)):
            shapes[f"{name}.{part}"] = draw(st.sampled_from(((), (1,), (48,), (48, 1), (1, 48))))
    keys = st.sampled_from(sorted(shapes))
    for key in draw(st.lists(keys, max_size=2)):
        shapes[key] = tuple(draw(st.lists(SIDES, max_size=3)))
    for key in draw(st.lists(keys, max_size=1)):
        del shapes[key]
    strange = draw(st.dictionaries(keys, st.sampled_from(DTYPES), max_size=2))
    return {key: torch.ones(shape, dtype=strange.get(key, torch.float32)) for key, shape in shapes.items()}


NUMBERS = st.none() | st.integers(-2, 50) | st.sampled_from((0.5, 1e300, 10**400)) | st.text(max_size=3)
PEFT = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("r", "alpha", "lora_alpha", "transformer.r", "transformer.lora_alpha"), NUMBERS),
        "rank_pattern": st.dictionaries(st.sampled_from(("attn.to_q", "^double_blocks", "(")), NUMBERS, max_size=2),
        "alpha_pattern": st.lists(NUMBERS, max_size=1),
        "use_rslora": st.booleans(),
        "use_dora": st.booleans(),
    },
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=files(), peft=st.none() | PEFT, svd_rank=st.sampled_from((None, 2)))
def test_it_is_read_or_refused(
    tmp_path: Path, tensors: dict[str, Tensor], peft: dict[str, object] | None, svd_rank: int | None
):
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path, None if peft is None else {"lora_adapter_metadata": json.dumps(peft)})
    network = network_sizes(TINY, NetworkSettings(network_dim=2, network_alpha=2.0))
    uses: list[Callable[[], object]] = [
        lambda: check_lora(path, TINY),
        lambda: check_network_weights(path, network),
        lambda: apply_lora(golden_dit(), read_lora(path)[0], 0.5),
        lambda: merge_lora(golden_dit(), read_lora(path)[0], 0.5),
        *(lambda to=to: convert_file(path, tmp_path / "to.safetensors", to) for to in LORA_LAYOUTS),
        *(lambda to=to: convert(tensors, to, svd_rank=svd_rank) for to in LORA_LAYOUTS),
    ]
    for use in uses:
        with suppress(UserError):
            use()


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"r": ' * 50_000, '{"r": NaN, "lora_alpha": Infinity}', '"\\ud800"'],
    ids=["lists", "objects", "no numbers", "half a character"],
)
def test_metadata_of_any_kind(tmp_path: Path, text: str):
    path = tmp_path / "lora.safetensors"
    name = "lora_unet_double_blocks_0_img_attn_q"
    tensors = {f"{name}.lora_down.weight": torch.ones(2, 48), f"{name}.lora_up.weight": torch.ones(48, 2)}
    save_file(tensors, path, {"lora_adapter_metadata": text})
    with pytest.raises(UserError, match=r"lora\.safetensors: "):
        read_lora(path)
