"""The limit of `scale_weight_norms` against norms of the whole changes, for each kind, and in a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hv15.lora import LoRANetwork
from hv15.lora.formats import read_parts
from hv15.lora.sizes import AdapterKind
from hv15.train.weight_norms import NormLimit
from tests.train.world import metrics, run, settings

pytestmark = pytest.mark.numeric

SIZES = {"img_attn_q": (24, 16), "img_attn_k": (16, 40), "img_attn_v": (64, 16), "img_attn_proj": (16, 16)}
KINDS = {
    "lora": AdapterKind(),
    "dora": AdapterKind("dora"),
    "loha": AdapterKind("loha"),
    "lokr": AdapterKind("lokr"),
    "lokr, full": AdapterKind("lokr", full_matrix=True),
}


def network(kind: str) -> LoRANetwork:
    """Changes of norms from 0 to beyond the limit, of several shapes, ranks and strengths."""
    block = nn.ModuleDict({name: nn.Linear(width, out) for name, (out, width) in SIZES.items()})
    names = [f"double_blocks.0.{name}" for name in SIZES]
    ranks, alphas = dict(zip(names, (2, 1, 3, 2), strict=True)), dict(zip(names, (1.0, 1.5, 7.5, 7.0), strict=True))
    model = nn.ModuleDict({"double_blocks": nn.ModuleList([block])})
    made = LoRANetwork(model, rank=ranks, alpha=alphas, kind=KINDS[kind])
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for branch, strength in zip(made.branches, (0.0, 0.01, 1.0, 9.0), strict=True):
            for factor in branch.factors:
                factor.copy_(torch.randn(factor.shape, generator=rng))
            branch.factors[-1].mul_(strength)
    return made


def changes(made: LoRANetwork) -> list[Tensor]:
    """The whole differences, without the magnitudes of a DoRA."""
    plain = {key: tensor for key, tensor in made.state_dict().items() if not key.endswith("dora_scale")}
    return [part.delta().double() for part in read_parts(plain).values()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_larger_changes_keep_their_direction_and_get_the_norm(kind: str) -> None:
    """As kohya's: max norm regularisation of the scaled product, each factor by the same root."""
    limit = 5.0
    before, after = network(kind), network(kind)
    mean, share = NormLimit(after.branches, limit).apply(torch.tensor(True)).tolist()
    norms = [float(change.norm()) for change in changes(before)]
    assert [norm > limit for norm in norms] == [False, False, True, True]
    assert share == 0.5
    assert mean == pytest.approx(sum(min(norm, limit) for norm in norms) / 4, rel=1e-5)
    for old, new, norm in zip(changes(before), changes(after), norms, strict=True):
        torch.testing.assert_close(new, old * min(limit / max(norm, 1e-9), 1), rtol=1e-5, atol=1e-6)
    for old, new, norm in zip(before.branches, after.branches, norms, strict=True):
        root = 1.0 if norm <= limit else (limit / norm) ** (1 / len(old.factors))
        for one, other in zip(old.factors, new.factors, strict=True):
            torch.testing.assert_close(other, one * root, rtol=1e-5, atol=1e-6)


def test_a_training_keeps_the_limit_and_records_the_norms(tmp_path: Path) -> None:
    limit, options = 0.05, {"max_train_steps": 4, "network_alpha": 2}
    lora = load_file(run(tmp_path / "limited", settings(**options, scale_weight_norms=limit)))
    free = load_file(run(tmp_path / "free", settings(**options)))
    found = [
        [float(part.delta().norm()) for part in read_parts(tensors).values()]  # type: ignore[attr-defined]
        for tensors in (lora, free)
    ]
    assert max(found[0]) <= limit * (1 + 1e-5) < max(found[1])
    last = metrics(tmp_path / "limited")[-1]
    assert last["weight_norm"] == pytest.approx(sum(found[0]) / len(found[0]), rel=1e-4)
    assert 0 < last["scaled_layers"] <= 1
    assert metrics(tmp_path / "free")[-1]["weight_norm"] is None
