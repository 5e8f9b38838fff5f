"""LoRA files as lycoris-lora writes them, and what its own forward pass makes of each."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
import torch
from lycoris import create_lycoris, create_lycoris_from_weights
from torch import Tensor, nn

from tests.lora.samples import run
from tests.models.golden_dit import golden_dit

DORA: dict[str, dict[str, Any]] = {
    "dora": {"algo": "lora", "dora_wd": True},
    "dora by columns": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
    "loha, dora": {"algo": "loha", "dora_wd": True},
    "loha, dora by columns": {"algo": "loha", "dora_wd": True, "wd_on_output": False},
    "lokr, dora": {"algo": "lokr", "factor": 4, "dora_wd": True},
    "lokr, full, dora": {"algo": "lokr", "factor": 4, "full_matrix": True, "dora_wd": True},
}
DEPENDENT = DORA | {
    "glora": {"algo": "glora"},
    "oft": {"algo": "diag-oft"},
    "oft, constrained": {"algo": "diag-oft", "constraint": 1e-3},
    "oft, rescaled": {"algo": "diag-oft", "rescaled": True},
    "boft": {"algo": "boft", "linear_dim": 36},
    "boft, rescaled": {"algo": "boft", "linear_dim": 36, "rescaled": True},
}
EXACT: dict[str, dict[str, Any]] = {
    "locon": {"algo": "lora"},
    "locon, rank-stabilised": {"algo": "lora", "rs_lora": True},
    "dylora": {"algo": "dylora"},
    "loha": {"algo": "loha"},
    "loha, with a scalar": {"algo": "loha", "use_scalar": True},
    "lokr": {"algo": "lokr", "factor": 4},
    "lokr, both factored": {"algo": "lokr", "factor": 8, "decompose_both": True, "linear_dim": 2, "linear_alpha": 3.0},
    "lokr, full": {"algo": "lokr", "factor": 4, "full_matrix": True},
    "lokr, unbalanced": {"algo": "lokr", "factor": 4, "unbalanced_factorization": True},
}
USABLE = EXACT | DEPENDENT
FEW = ("locon", "loha", "lokr", "dora by columns", "loha, dora", "lokr, dora", "glora", "oft", "boft")
"""Each algorithm, and DoRA with each that may have it."""
UNUSABLE: dict[str, dict[str, Any]] = {
    "ia3": {"algo": "ia3"},
    "tlora": {"algo": "tlora"},
    "full": {"algo": "full"},  # changes the biases too
}


def mostly_slow(kinds: Iterable[str]) -> list[Any]:
    """Values of a parameter: all but FEW run by `pytest -m slow` only."""
    return [kind if kind in FEW else pytest.param(kind, marks=pytest.mark.slow) for kind in kinds]


@cache
def made(kind: str, strength: float = 1.0) -> tuple[dict[str, Tensor], Tensor]:
    """A file that lycoris-lora wrote for the blocks, alpha != rank, and the model's output under its own network."""
    dit = golden_dit()
    torch.manual_seed(4)
    blocks = nn.ModuleDict({"double_blocks": dit.double_blocks})
    if kind in UNUSABLE:  # one layer is enough to refuse
        layer = nn.ModuleDict({"img_attn_q": dit.get_submodule("double_blocks.0.img_attn_q")})
        blocks = nn.ModuleDict({"double_blocks": nn.ModuleList([layer])})
    settings = {"linear_dim": 4, "linear_alpha": 2.0} | (USABLE | UNUSABLE)[kind]
    network = create_lycoris(blocks, strength, **settings)
    network.apply_to()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        expected = run(dit)
        file = {key: value.detach().clone() for key, value in network.state_dict().items()}
        if kind == "dylora":  # its forward pass draws a rank; its file is a plain LoRA to lycoris-lora
            dit = golden_dit()
            blocks = nn.ModuleDict({"double_blocks": dit.double_blocks})
            create_lycoris_from_weights(strength, None, blocks, weights_sd=file)[0].apply_to()
            expected = run(dit)
    return file, expected
