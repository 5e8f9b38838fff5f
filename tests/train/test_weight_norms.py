"""The limit of `scale_weight_norms` against norms of the whole products, and in a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hv15.train.weight_norms import Factors, NormLimit
from tests.train.world import metrics, run, settings


def layers() -> list[Factors]:
    """Changes of norms from 0 to beyond the limit, of several shapes and ranks."""
    rng = torch.Generator().manual_seed(0)
    made = []
    for number, (out, width, strength) in enumerate([(24, 16, 0.0), (16, 40, 0.01), (64, 16, 1.0), (16, 16, 9.0)]):
        down, up = torch.randn(4, width, generator=rng), strength * torch.randn(out, 4, generator=rng)
        made.append(Factors(down, up, 0.5 + number))
    return made


def change(layer: Factors) -> torch.Tensor:
    return (layer.up.double() @ layer.down.double()) * layer.scale


def test_larger_changes_keep_their_direction_and_get_the_norm() -> None:
    """As kohya's: max norm regularisation of the scaled product, its factors by the root."""
    limit = 5.0
    before, after = layers(), layers()
    mean, share = NormLimit(after, limit).apply().tolist()
    norms = [float(change(layer).norm()) for layer in before]
    assert [norm > limit for norm in norms] == [False, False, True, True]
    assert share == 0.5
    assert mean == pytest.approx(sum(min(norm, limit) for norm in norms) / 4, rel=1e-5)
    for old, new, norm in zip(before, after, norms, strict=True):
        if norm <= limit:
            assert torch.equal(old.up, new.up)
            assert torch.equal(old.down, new.down)
            continue
        torch.testing.assert_close(change(new), change(old) * (limit / norm), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(new.up, old.up * (limit / norm) ** 0.5, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(new.down, old.down * (limit / norm) ** 0.5, rtol=1e-5, atol=1e-6)


def test_a_training_keeps_the_limit_and_records_the_norms(tmp_path: Path) -> None:
    limit, options = 0.05, {"max_train_steps": 4, "network_alpha": 2}
    lora = load_file(run(tmp_path / "limited", settings(**options, scale_weight_norms=limit)))
    free = load_file(run(tmp_path / "free", settings(**options)))
    found = []
    for tensors in (lora, free):
        names = [key.removesuffix(".alpha") for key in tensors if key.endswith(".alpha")]
        pairs = [(tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"]) for name in names]
        found.append([float(change(Factors(down, up, 2 / 4)).norm()) for down, up in pairs])
    assert max(found[0]) <= limit * (1 + 1e-5) < max(found[1])
    last = metrics(tmp_path / "limited")[-1]
    assert last["weight_norm"] == pytest.approx(sum(found[0]) / len(found[0]), rel=1e-4)
    assert 0 < last["scaled_layers"] <= 1
    assert metrics(tmp_path / "free")[-1]["weight_norm"] is None
