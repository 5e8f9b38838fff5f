"""Checks from headers alone, without torch, that a LoRA file fits a transformer or the network of a training.

`hv15 check` and planning use it, before anything is encoded. What a header does not tell (whether joined q, k and v are
three LoRAs or one) is assumed to fit; `LoRANetwork.load_state_dict` makes the final check.
"""

from __future__ import annotations

import math
from pathlib import Path

from hv15.errors import UserError
from hv15.lora.outline import ModuleOutline, read_outline
from hv15.lora.sizes import AdapterKind, NetworkSizes, alpha_of, rank_of, trainable_layers, wrong_kind
from hv15.models.dit_config import DiTConfig

_OTHER_SIZE = "use a LoRA for this model: this one was made for a model of another size"


def check_network_weights(path: Path, network: NetworkSizes) -> None:
    """Check that a training of this network can start from a LoRA file (`train.network_weights`).

    Raises:
        UserError: the file is missing or damaged, or of another kind, or has other layers, sizes, ranks or alphas.
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
    if (wrong := wrong_kind(module, network.kind)) is not None:
        raise UserError(
            f"{wrong} ({', '.join(sorted(module.shapes))})",
            hint="set train.network_type to the file's kind; or use the file in train.base_weights, or merge it into "
            "the base model (hv15 merge), and train on that",
        )
    wanted, joined = _wanted(module, network), len(module.places) > 1
    rows, columns = network.layers[wanted[0]]
    expected = (rows * len(module.places), columns)
    if module.weight_shape() != expected:
        raise UserError(f"{module.name} has {_listed(module)}, but the layer is {list(expected)}", hint=_OTHER_SIZE)
    if not joined or network.kind.type != "lokr":  # w2 of joined LoKr is either common to all three, or not in the file
        _check_rank(module, network, wanted)
    rank, own_alpha, alpha = rank_of(module), alpha_of(module), network.alphas[wanted[0]]
    strength = own_alpha / rank
    if not math.isfinite(strength):
        raise UserError(f"{module.name} has alpha {own_alpha:g}", hint="the file is damaged: use another one")
    found_alpha = strength * network.ranks[wanted[0]]
    if "lokr_w2" not in module.shapes and not math.isclose(found_alpha, alpha, rel_tol=1e-6):
        raise UserError(
            f"{module.name} has alpha {found_alpha:g}, but train.network_alpha is {alpha:g}",
            hint=f"set train.network_alpha to {found_alpha:g}, or train.dim_from_weights to true",
        )


def _check_rank(module: ModuleOutline, network: NetworkSizes, wanted: list[str]) -> None:
    """Refuse a module of another rank, or of another shape than its rank gives."""
    ranks, rank = [network.ranks[layer] for layer in wanted], rank_of(module)
    # Joined q, k and v are either three stacked LoRAs, or one LoRA for all three.
    possible = {sum(ranks), *(ranks if len(ranks) == 3 == len(module.places) and len(set(ranks)) == 1 else ())}
    if rank not in possible and "lokr_w2" not in network.shapes(wanted[0]):
        own = rank // len(wanted) if rank % len(wanted) == 0 else rank
        raise UserError(
            f"{module.name} has rank {own}, but train.network_dim is {ranks[0]}",
            hint=f"set train.network_dim to {own}, or train.dim_from_weights to true",
        )
    shapes = {part: shape for part, shape in module.shapes.items() if part != "alpha"}
    rows, columns = network.layers[wanted[0]]
    joint = AdapterKind(network.kind.type).shapes(rows * len(module.places), columns, rank)
    if shapes != (joint if len(module.places) > 1 else network.shapes(wanted[0])):
        raise UserError(
            f"{module.name} has {_listed(module)}, but the settings ask for other shapes",
            hint="set train.lokr_factor, train.lokr_full_matrix and train.network_dim as in the training that made it",
        )


def _listed(module: ModuleOutline) -> str:
    return ", ".join(f"{part} {list(shape)}" for part, shape in sorted(module.shapes.items()))
