"""Checks from headers alone, without torch, that a LoRA file fits a transformer or the network of a training.

`hv15 check` and planning use it, before anything is encoded. What a header does not tell (whether joined q, k and v are
three LoRAs or one) is assumed to fit; `LoRANetwork.load_state_dict` makes the final check.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hv15.errors import UserError
from hv15.lora.kinds import kind_of
from hv15.lora.names import select_modules
from hv15.lora.outline import ModuleOutline, read_outline
from hv15.models.dit_config import DiTConfig

_OTHER_SIZE = "use a LoRA for this model: this one was made for a model of another size"


@dataclass(frozen=True)
class NetworkSizes:
    """The sizes of the LoRA that a training makes."""

    layers: Mapping[str, tuple[int, int]]
    """(out, in) of each layer that gets a LoRA, by official name."""
    rank: int
    alpha: float

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        return self.rank * sum(map(sum, self.layers.values()))


def trainable_layers(config: DiTConfig) -> dict[str, tuple[int, int]]:
    """Return (out, in) of the 14 linear layers of every double block, by official name, in the model's order."""
    hidden, mlp = config.hidden_size, config.mlp_size
    sizes = {
        "mod.linear": (6 * hidden, hidden),
        **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_proj"), (hidden, hidden)),
        "mlp.fc1": (mlp, hidden),
        "mlp.fc2": (hidden, mlp),
    }
    streams = [(block, stream) for block in range(config.num_blocks) for stream in ("img", "txt")]
    return {f"double_blocks.{block}.{stream}_{part}": size for block, stream in streams for part, size in sizes.items()}


def network_sizes(
    config: DiTConfig, *, rank: int, alpha: float, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> NetworkSizes:
    """Return the sizes of the LoRA that the settings ask for on a transformer of these sizes.

    Args:
        config: sizes of the base model, see `hv15.models.dit_sizes.read_config`.
        rank, alpha: `train.network_dim` and `train.network_alpha`.
        include, exclude: see `select_modules`.

    Raises:
        UserError: a pattern is not a regular expression or matches nothing, or no layer is left to train.
    """
    layers = trainable_layers(config)
    return NetworkSizes({name: layers[name] for name in select_modules(layers, include, exclude)}, rank, alpha)


def check_network_weights(path: Path, network: NetworkSizes) -> None:
    """Check that a training of this network can start from a LoRA file (`train.network_weights`).

    Raises:
        UserError: the file is missing or damaged, not a plain LoRA, or has other layers, sizes, ranks or alphas.
    """
    modules = read_outline(path)
    unexpected = [module.name for module in modules if not _wanted(module, network)]
    present = {part for module in modules for part in module.places}
    missing = [layer for layer in network.layers if layer not in present]
    try:
        if missing or unexpected:
            parts = []
            if missing:
                parts.append(f"{len(missing)} of {len(network.layers)} are missing, first {missing[0]}")
            if unexpected:
                parts.append(f"{len(unexpected)} are unexpected, first {unexpected[0]}")
            raise UserError(
                f"does not fit the layers that train selects: {'; '.join(parts)}",
                hint="use the include_patterns and exclude_patterns of the run that made it, and the same base model",
            )
        for module in modules:
            _check_module(module, network)
    except UserError as error:
        raise UserError.at(path, error.message, hint=error.hint) from error


def check_lora(path: Path, config: DiTConfig) -> None:
    """Check that a LoRA file of any usable kind fits a transformer of these sizes (`sample.loras`, merging).

    Only sizes in the double blocks are compared, which have nearly all layers.

    Raises:
        UserError: the file is missing or damaged, of a kind that cannot be used, or made for another model.
    """
    modules, layers = read_outline(path), trainable_layers(config)
    parts = [part for module in modules for part in module.places if part.startswith("double_blocks.")]
    missing = [part for part in parts if part not in layers]
    if missing:
        raise UserError.at(
            path,
            f"{len(missing)} of {len(parts)} changed layers are not in this model, first {missing[0]}",
            hint=f"use a LoRA for this model: this one was made for a model of more than {config.num_blocks} blocks",
        )
    for module in modules:
        sizes = [layers[part] for part in module.places if part in layers]
        found = module.weight_shape()
        if not sizes or found is None:
            continue
        rows, columns = sum(outer for outer, _ in sizes), sizes[0][1]
        if found[0] != rows or found[1] not in (None, columns):
            weight = f"{found[0]} rows of a weight" if found[1] is None else f"a weight of {list(found)}"
            raise UserError.at(
                path, f"{module.name} changes {weight}, but the model's is {[rows, columns]}", hint=_OTHER_SIZE
            )


def _wanted(module: ModuleOutline, network: NetworkSizes) -> list[str]:
    """Return the layers of a module of a file that the network trains."""
    return [part for part in module.places if part in network.layers]


def _check_module(module: ModuleOutline, network: NetworkSizes) -> None:
    """Refuse a module whose kind, sizes, rank or alpha are not the network's."""
    if set(module.shapes) - {"alpha"} != {"lora_down.weight", "lora_up.weight"}:
        raise UserError(
            f"{module.name} is {kind_of(module.shapes)} ({', '.join(sorted(module.shapes))}); "
            "a training can only continue from a LoRA",
            hint="use it in sample.loras, or merge it into the base model (hv15 merge) and train on that",
        )
    wanted, joined = _wanted(module, network), len(module.places) > 1
    rows, columns = network.layers[wanted[0]]
    expected = (rows * len(module.places), columns)
    found = module.weight_shape()
    if found != expected:
        shapes = ", ".join(f"{part} {list(shape)}" for part, shape in sorted(module.shapes.items()))
        raise UserError(f"{module.name} has {shapes}, but the layer is {list(expected)}", hint=_OTHER_SIZE)
    rank = module.shapes["lora_down.weight"][0]
    # Joined q, k and v are either three stacked LoRAs, or one LoRA for all three.
    ranks = {network.rank * len(wanted), network.rank} if joined and len(wanted) == 3 else {network.rank * len(wanted)}
    if rank not in ranks or module.shapes["lora_up.weight"][1] != rank:
        own = rank // len(wanted) if rank % len(wanted) == 0 else rank
        raise UserError(
            f"{module.name} has rank {own}, but train.network_dim is {network.rank}",
            hint=f"set train.network_dim to {own}",
        )
    strength = 1.0 if module.alpha is None else module.alpha / rank
    if not math.isfinite(strength):
        raise UserError(f"{module.name} has alpha {strength * rank:g}", hint="the file is damaged: use another one")
    if not math.isclose(strength * network.rank, network.alpha, rel_tol=1e-6):
        alpha = strength * network.rank
        raise UserError(
            f"{module.name} has alpha {alpha:g}, but train.network_alpha is {network.alpha:g}",
            hint=f"set train.network_alpha to {alpha:g}",
        )
