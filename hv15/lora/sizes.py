"""Which layers a training gives a LoRA, of which kind, rank and alpha, and its tensors' shapes. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from hv15.choices import NetworkType
from hv15.config.settings import Settings
from hv15.config.training.network import NetworkSettings
from hv15.errors import UserError
from hv15.lora.factorization import lokr_matrices
from hv15.lora.kinds import BASE_MAGNITUDE, kind_of
from hv15.lora.names import BLOCK_PARTS, by_pattern, select_modules
from hv15.lora.outline import ModuleOutline, read_outline
from hv15.models.dit_config import DiTConfig

Shapes = dict[str, tuple[int, int]]
"""Shapes of the tensors of one layer's LoRA, without its alpha, by part, as files name them."""
_KINDS: dict[NetworkType, str] = {"lora": "a LoRA", "dora": "a DoRA", "loha": "a LoHa", "lokr": "a LoKr"}


@dataclass(frozen=True)
class AdapterKind:
    """How the change of a weight is made of smaller matrices."""

    type: NetworkType = "lora"
    factor: int = -1
    """See the setting `lokr_factor`."""
    full_matrix: bool = False
    """See the setting `lokr_full_matrix`."""

    @classmethod
    def from_settings(cls, options: NetworkSettings) -> AdapterKind:
        return cls(options.network_type, options.lokr_factor, options.lokr_full_matrix)

    def shapes(self, rows: int, columns: int, rank: int) -> Shapes:
        """Return the shapes for a weight (out, in), as LyCORIS chooses them."""
        match self.type:
            case "lora":
                return {"lora_down.weight": (rank, columns), "lora_up.weight": (rows, rank)}
            case "dora":
                return {**AdapterKind().shapes(rows, columns, rank), BASE_MAGNITUDE: (rows, 1)}
            case "loha":
                outer, inner = (rows, rank), (rank, columns)
                return {"hada_w1_a": outer, "hada_w1_b": inner, "hada_w2_a": outer, "hada_w2_b": inner}
            case "lokr":
                w1, w2 = lokr_matrices(rows, columns, self.factor)
                if self.full_matrix or rank >= max(w2) / 2:
                    return {"lokr_w1": w1, "lokr_w2": w2}
                return {"lokr_w1": w1, "lokr_w2_a": (w2[0], rank), "lokr_w2_b": (rank, w2[1])}


@dataclass(frozen=True)
class NetworkSizes:
    """The sizes of the LoRA that a training makes."""

    layers: Mapping[str, tuple[int, int]]
    """(out, in) of each layer that gets a LoRA, by official name."""
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    """Of each of these layers."""
    kind: AdapterKind = AdapterKind()

    def shapes(self, layer: str) -> Shapes:
        """Return the shapes of a layer's tensors, without its alpha."""
        return self.kind.shapes(*self.layers[layer], self.ranks[layer])

    def numbers_of(self, layer: str) -> int:
        """Return the number of a layer's trained parameters."""
        return sum(map(prod, self.shapes(layer).values()))

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """Rows and columns of all trained tensors."""
        return [shape for layer in self.layers for shape in self.shapes(layer).values()]

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        return sum(map(prod, self.matrices))

    def alike(self, blocks: int) -> NetworkSizes:
        """Return the sizes for a model of so many blocks, each with what the block with the highest ranks has."""
        largest = {name.split(".", 2)[2]: name for name in sorted(self.layers, key=self.ranks.__getitem__)}
        names = {
            f"double_blocks.{block}.{part}": largest[part]
            for block in range(blocks)
            for part in BLOCK_PARTS
            if part in largest
        }
        return NetworkSizes(
            {here: self.layers[name] for here, name in names.items()},
            {here: self.ranks[name] for here, name in names.items()},
            {here: self.alphas[name] for here, name in names.items()},
            self.kind,
        )


def settings_network(config: DiTConfig, settings: Settings) -> NetworkSizes:
    """Return the sizes of the LoRA that a project's settings ask for; see `network_sizes`.

    Raises:
        UserError: as `network_sizes`.
    """
    weights = settings.train.network_weights
    return network_sizes(config, settings.train, settings.resolve(weights) if weights else None)


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


def network_sizes(config: DiTConfig, options: NetworkSettings, weights: Path | None = None) -> NetworkSizes:
    """Return the sizes of the LoRA that the settings ask for on a transformer of these sizes.

    Args:
        config: sizes of the base model, see `hv15.models.dit_sizes.read_config`.
        weights: the file of `network_weights`; only read with `dim_from_weights`.

    Raises:
        UserError: a pattern is not a regular expression or has no effect, no layer is left to train, a rank is above a
            layer's smaller side, or the file is damaged, of another kind or with layers that cannot be trained.
    """
    trainable, kind = trainable_layers(config), AdapterKind.from_settings(options)
    if options.dim_from_weights:
        assert weights is not None
        ranks, alphas = _from_file(weights, trainable, kind)
        names = [name for name in trainable if name in ranks]
    else:
        names = select_modules(
            trainable,
            options.include_patterns,
            options.exclude_patterns,
            preset=options.layers,
            blocks=options.layer_blocks,
        )
        ranks = by_pattern("network_dim_patterns", options.network_dim_patterns, names, options.network_dim)
        alphas = by_pattern("network_alpha_patterns", options.network_alpha_patterns, names, options.network_alpha)
    sizes = NetworkSizes(
        {name: trainable[name] for name in names},
        {name: ranks[name] for name in names},
        {name: alphas[name] for name in names},
        kind,
    )
    _check_ranks(sizes, options)
    return sizes


def wrong_kind(module: ModuleOutline, kind: AdapterKind) -> str | None:
    """Say of which kind a module of a file is, if a training of another kind cannot start from it; None if it can."""
    found = kind_of(module.shapes)
    if found != _KINDS[kind.type]:
        return f"{module.name} is {found}, but train.network_type is {kind.type}"
    if kind.type == "dora" and not {"lora_down.weight", "lora_up.weight", BASE_MAGNITUDE} <= module.shapes.keys():
        return f"{module.name} is a DoRA of another program, whose magnitudes have another meaning than hv15's"
    return None


def _from_file(
    path: Path, trainable: Mapping[str, tuple[int, int]], kind: AdapterKind
) -> tuple[dict[str, int], dict[str, float]]:
    """Return the ranks and alphas of the layers in a file, by official name."""
    ranks, alphas = dict[str, int](), dict[str, float]()
    for module in read_outline(path):
        layer, *others = module.places
        if others or layer not in trainable:
            what = "is q, k and v in one matrix" if others else "is not a layer that hv15 trains"
            raise UserError.at(
                path,
                f"{module.name} {what}, so dim_from_weights cannot take its rank",
                hint="convert the file with `hv15 convert --reverse`, or set network_dim and network_alpha"
                if others
                else "use a file with layers of the double blocks only, or set network_dim and network_alpha",
            )
        if (wrong := wrong_kind(module, kind)) is not None:
            raise UserError.at(path, wrong, hint="set train.network_type to the file's kind")
        ranks[layer] = rank_of(module)
        alphas[layer] = alpha_of(module)
    return ranks, alphas


def rank_of(module: ModuleOutline) -> int:
    """Return the rank of a module of a file; for a LoKr without one, the least with which w2 is whole."""
    for part in ("lora_down.weight", "hada_w1_b", "lokr_w2_b"):
        if part in module.shapes:
            return module.shapes[part][0]
    return -(-max(module.shapes.get("lokr_w2", (2,))) // 2)


def alpha_of(module: ModuleOutline) -> float:
    """Return the alpha of a module of a file; its rank if the file has none, or has it in w1 (LoKr of PEFT)."""
    is_elsewhere = "alpha" not in module.shapes and any(part.startswith("lokr_") for part in module.shapes)
    return float(rank_of(module)) if module.alpha is None or is_elsewhere else module.alpha


def _check_ranks(sizes: NetworkSizes, options: NetworkSettings) -> None:
    for name, sides in sizes.layers.items():
        rank, side = sizes.ranks[name], min(sides)
        if rank > side and "lokr_w2" not in sizes.shapes(name):  # a whole w2 has no rank
            raise UserError(
                f"train.{_setting_of(rank, options)}: rank {rank} of {name} is above its smaller side, {side}",
                hint=f"use at most {side} for this layer; 8 to 64 is usual",
            )


def _setting_of(rank: int, options: NetworkSettings) -> str:
    """Return the setting that a layer's rank comes from."""
    if options.dim_from_weights:
        return "dim_from_weights"
    return "network_dim" if rank == options.network_dim else "network_dim_patterns"
