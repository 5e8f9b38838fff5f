"""LoRAs for tests: random, of any rank and alpha, on any modules; and a tiny DiT to put them on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tests.models.golden_dit import case, condition

QKV = "double_blocks.0.img_attn_"


def kohya(module: str) -> str:
    return "lora_unet_" + module.replace(".", "_")


def linears(dit: nn.Module, inside: str = "double_blocks.") -> dict[str, nn.Linear]:
    return {n: m for n, m in dit.named_modules() if isinstance(m, nn.Linear) and n.startswith(inside)}


def random_lora(
    modules: Mapping[str, nn.Linear] | Mapping[str, tuple[int, int]],
    rank: int | Mapping[str, int] = 4,
    alpha: float | Mapping[str, float] = 2.0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """A LoRA in kohya's layout, on linear layers or on (out, in) sizes by official module name."""
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for name, module in modules.items():
        rows, columns = (module.out_features, module.in_features) if isinstance(module, nn.Linear) else module
        r = rank if isinstance(rank, int) else rank[name]
        a = alpha if isinstance(alpha, float) else alpha[name]
        tensors[f"{kohya(name)}.lora_down.weight"] = torch.randn(r, columns, generator=draw).to(dtype) * 0.25
        tensors[f"{kohya(name)}.lora_up.weight"] = torch.randn(rows, r, generator=draw).to(dtype) * 0.25
        tensors[f"{kohya(name)}.alpha"] = torch.tensor(a)
    return tensors


def delta(tensors: Mapping[str, Tensor], module: str) -> Tensor:
    """up @ down * alpha / rank of a module in a kohya file, in float64; zero if it is not there."""
    key = kohya(module)
    if f"{key}.lora_up.weight" not in tensors:
        return torch.zeros((), dtype=torch.float64)
    up, down = tensors[f"{key}.lora_up.weight"].double(), tensors[f"{key}.lora_down.weight"].double()
    return up @ down * (tensors[f"{key}.alpha"].item() / down.shape[0])


def without(tensors: Mapping[str, Tensor], modules: Iterable[str]) -> dict[str, Tensor]:
    names = {kohya(module) for module in modules}
    return {key: tensor for key, tensor in tensors.items() if key.split(".")[0] not in names}


def run(dit: nn.Module, name: str = "i2v_byt5") -> Tensor:
    """The DiT's output on a recorded case."""
    recorded = case(name)
    arguments = recorded["in/hidden_states"], recorded["in/timestep"]
    return dit(*arguments, condition(recorded, image=name.startswith("i2v")))
