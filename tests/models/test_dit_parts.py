"""Single modules of the transformer at small and large inputs, where a wrong epsilon or GELU shows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.models import DiT
from hv15.models.attention import attend
from hv15.models.condition import pack
from hv15.models.passes import modulate
from tests.models.golden_dit import golden_dit, tensors

pytestmark = pytest.mark.numeric

SCALES = ("scale0.001", "scale0.01", "scale1")


@pytest.fixture(scope="module")
def dit() -> DiT:
    return golden_dit()


def close(found: Tensor, expected: Tensor) -> None:
    # Relative to each row's size: single entries near zero carry the rounding of the whole row.
    assert_close(found, expected, rtol=1e-4, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "name", ["qk_rmsnorm", "img_norm1", "byt5_in", "vision_in", "final_layer", "img_mod", "img_mlp"]
)
def test_module_is_the_official_one(dit: DiT, name: str, scale: str):
    recorded = tensors("micro_ops")
    x, expected = recorded[f"{name}/{scale}/in"], recorded[f"{name}/{scale}/out"]
    block = dit.double_blocks[0]
    zero = torch.zeros(())
    found = {
        "qk_rmsnorm": lambda: block.img_attn_q_norm(x),
        "img_norm1": lambda: modulate(x, zero, zero),
        "byt5_in": lambda: dit.byt5_in(x),
        "vision_in": lambda: dit.vision_in(x),
        "final_layer": lambda: dit.final_layer(x, recorded[f"{name}/{scale}/vec"]),
        "img_mod": lambda: torch.cat(block.img_mod(x), dim=-1).squeeze(1),
        "img_mlp": lambda: block.img_mlp(x),
    }[name]()
    close(found, expected)


def test_time_embedding_is_the_official_one(dit: DiT):
    recorded = tensors("micro_ops")
    close(dit.time_in(recorded["time_in/in"], torch.float32), recorded["time_in/out"])


def test_token_refiner_is_the_official_one_where_tokens_are_valid(dit: DiT):
    recorded = tensors("micro_ops")
    lengths = recorded["txt_in/mask"].sum(1).tolist()
    found = dit.txt_in(dit.txt_in.prepare(recorded["txt_in/in"], lengths), recorded["txt_in/t"], lengths)
    assert min(lengths) < recorded["txt_in/in"].shape[1]
    for i, length in enumerate(lengths):
        close(found[i, :length], recorded["txt_in/out"][i, :length])


def test_attention_of_padded_samples_is_their_own_attention():
    q, k, v = torch.randn(3, 2, 7, 2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = attend(q, k, v, [7, 4])
    weights = torch.einsum("nhd,mhd->hnm", q[1, :4], k[1, :4]).div(8**0.5).softmax(-1)
    expected = torch.einsum("hnm,mhd->nhd", weights, v[1, :4]).flatten(1)
    assert_close(found[1, :4], expected, atol=1e-14, rtol=0)
    assert not found[1, 4:].any()


def test_pack_puts_valid_tokens_first_in_the_order_of_the_parts():
    first, second = torch.arange(1.0, 7).view(2, 3, 1), torch.arange(11.0, 15).view(2, 2, 1)
    tokens, lengths = pack([(first, [1, 3]), (second, [2, 0])])
    assert lengths == [3, 3]
    assert tokens.squeeze(-1).tolist() == [[1, 11, 12], [4, 5, 6]]
    tokens, lengths = pack([(first, [1, 3]), (second, [0, 2])])
    assert lengths == [1, 5]
    assert tokens.squeeze(-1).tolist() == [[1, 0, 0, 0, 0], [4, 5, 6, 13, 14]]
