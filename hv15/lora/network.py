"""A trainable LoRA on the linear layers of a frozen DiT.

- It uses forward hooks: the DiT keeps its modules and names, so quantised linears, block swap and `.weight` keep
  working, and `detach` removes it completely. Blocks do not call these hooks, but compute a layer and its branch as one
  operation (`hv15.models.adapted`).
- The parameters are in the network, in fp32. They are cast to the DiT's dtype once, when its forward pass begins.
- Its output is added to the layer's in place, without a second tensor of that size. The layer is frozen, so its own
  output is not needed afterwards.
- Random numbers do not depend on a global state: initial values come from (seed, module name), dropout masks from
  (step seed, module name), so gradient checkpointing recomputes with the same masks.
- `state_dict()` has kohya's names, as in files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hv15.errors import UserError
from hv15.lora.names import kohya_name, select_modules
from hv15.lora.rates import rates_of_layers
from hv15.models.adapted import LowRankHook
from hv15.models.windows import current_window


class ParameterGroup(TypedDict):
    """Parameters with their learning rate, in the form that torch's optimizers expect."""

    name: str
    params: list[nn.Parameter]
    lr: float


class Factor(nn.Module):
    """One of the two matrices, as a module so that its key ends in `.weight`."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


class Dropouts:
    """Dropout of a network, shared by its branches; masks depend only on (step seed, module name)."""

    def __init__(self, dropout: float, rank_dropout: float, module_dropout: float) -> None:
        self.dropout, self.rank_dropout, self.module_dropout = dropout, rank_dropout, module_dropout
        self.step_seed: int | None = None
        self.skips, self.mask = self._skips, self._masked
        if dropout or rank_dropout or module_dropout:
            # Kept out of compiled code, where a step's seed would be a constant, so that each step would compile again.
            # Not done by decorators, which would always import the compiler: that takes a second.
            self.skips, self.mask = torch.compiler.disable(self._skips), torch.compiler.disable(self._masked)

    def _skips(self, name: str) -> bool:
        """Whether module dropout skips this module in this step; decided on the CPU, so without a sync."""
        return _seed(self._seed_of_step(), f"{name}/module") / 2**63 < self.module_dropout

    def _masked(self, hidden: Tensor, name: str) -> Tensor:
        """Apply dropout and rank dropout to hidden (batch, ..., rank), the output of `down`, rescaled to keep the mean.

        A window of tokens gets its part of the mask of all tokens.
        """
        generator = torch.Generator(hidden.device).manual_seed(_seed(self._seed_of_step(), name))
        if self.dropout:
            window = current_window() if hidden.ndim == 3 else None
            if window is None:
                mask = _mask(hidden.shape, self.dropout, hidden, generator)
            else:
                whole = (hidden.shape[0], window.total, hidden.shape[2])
                mask = _mask(whole, self.dropout, hidden, generator)[:, window.slice]
            hidden = hidden * mask
        if self.rank_dropout:
            shape = (hidden.shape[0], *[1] * (hidden.ndim - 2), hidden.shape[-1])
            hidden = hidden * _mask(shape, self.rank_dropout, hidden, generator)
        return hidden

    def _seed_of_step(self) -> int:
        if self.step_seed is None:
            raise RuntimeError("dropout needs set_step_seed before the forward pass")
        return self.step_seed


class LoRABranch(nn.Module):
    """The LoRA of one linear layer: up(down(x)) * alpha/rank."""

    def __init__(self, name: str, base: nn.Linear, rank: int, alpha: float, seed: int, shared: Dropouts) -> None:
        super().__init__()
        self.name, self.scale, self.shared = name, alpha / rank, shared
        bound = 1 / math.sqrt(base.in_features)  # kaiming_uniform with a = sqrt(5)
        generator = torch.Generator().manual_seed(_seed(seed, name))
        down = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_down = Factor(down.to(base.weight.device))
        self.lora_up = Factor(torch.zeros(base.out_features, rank, device=base.weight.device))
        self.register_buffer("alpha", torch.tensor(alpha))
        self.cast: tuple[Tensor, Tensor] | None = None
        """Down (rank, in) and up (out, rank) in the DiT's dtype, as of the beginning of its last forward pass."""

    def add_to(self, output: Tensor, x: Tensor) -> Tensor:
        """Add the branch's output for x (..., in) to the base layer's output (..., out), in place."""
        shared = self.shared
        if self.training and shared.module_dropout and shared.skips(self.name):
            return output
        hidden = F.linear(x, self.lora_down.weight.to(x.dtype))  # (..., rank)
        if self.training and (shared.dropout or shared.rank_dropout):
            hidden = shared.mask(hidden, self.name)
        return add_product(output, hidden, self.lora_up.weight, self.scale)


class LoRANetwork(nn.Module):
    """LoRA on the 14 linear layers of every double block (756 in the real model), or on those that patterns choose.

    Args:
        dit: the model; it is frozen (`requires_grad` is switched off) and hooked immediately.
        rank, alpha: the strength is alpha/rank.
        dropout: probability of zeroing an element of the output of `down`.
        rank_dropout: probability of zeroing a rank for a sample.
        module_dropout: probability of skipping a module in a step.
        include, exclude: see `select_modules`.
        seed: of the initial values, which depend only on it and on the module's name.

    Raises:
        UserError: a pattern matches nothing, or a rank, alpha or probability is out of range.
    """

    def __init__(
        self,
        dit: nn.Module,
        *,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        rank_dropout: float = 0.0,
        module_dropout: float = 0.0,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_sizes(rank, alpha, {"network": dropout, "rank": rank_dropout, "module": module_dropout})
        self.rank, self.alpha = rank, float(alpha)
        self.shared = Dropouts(dropout, rank_dropout, module_dropout)
        self._handles: list[RemovableHandle] = []
        self._copies: list[Tensor] = []
        modules = dict(dit.named_modules())
        self.module_names = select_modules(modules, include, exclude)
        """Official names of the trained modules, in the model's order."""
        dit.requires_grad_(False)
        for name in self.module_names:
            base = modules[name]
            # Quantised linears are not nn.Linear, but have the attributes that are used.
            branch = LoRABranch(name, base, rank, self.alpha, seed, self.shared)
            self.add_module(kohya_name(name), branch)
        self._attach(dit)

    @torch.no_grad()
    def _cast(self, dit: nn.Module, _args: tuple[object, ...] = ()) -> None:
        """Cast all matrices to the DiT's dtype, as a hook that is called before its forward pass."""
        branches = [branch for branch in self.children() if isinstance(branch, LoRABranch)]
        matrices: list[Tensor] = [branch.lora_down.weight for branch in branches]
        matrices += [branch.lora_up.weight for branch in branches]
        dtype, device = getattr(dit, "dtype", torch.float32), matrices[0].device
        if dtype == matrices[0].dtype:
            return
        if not self._copies or self._copies[0].dtype != dtype or self._copies[0].device != device:
            # The downs of q, k and v lie one behind the other, so that they are one matrix without another copy.
            sizes = [matrix.numel() for matrix in matrices]
            parts = torch.empty(sum(sizes), dtype=dtype, device=device).split(sizes)
            self._copies = [part.view(matrix.shape) for part, matrix in zip(parts, matrices, strict=True)]
            for branch, down, up in zip(branches, self._copies, self._copies[len(branches) :], strict=False):
                branch.cast = down, up
        torch._foreach_copy_(self._copies, matrices)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @contextmanager
    def detached(self, dit: nn.Module) -> Iterator[None]:
        """Remove the hooks for a while."""
        self.detach()
        try:
            yield
        finally:
            self._attach(dit)

    def _attach(self, dit: nn.Module) -> None:
        for name in self.module_names:
            branch = self.get_submodule(kohya_name(name))
            assert isinstance(branch, LoRABranch)
            self._handles.append(dit.get_submodule(name).register_forward_hook(_Hook(branch)))
        self._handles.append(dit.register_forward_pre_hook(self._cast))
        self._cast(dit)

    def detach(self) -> None:
        """Remove the hooks, so that the DiT computes as before."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def set_step_seed(self, seed: int) -> None:
        """Set the seed of the dropout masks; if there is any dropout, set a new one for every batch."""
        self.shared.step_seed = int(seed)

    def parameter_groups(
        self, lr: float, loraplus_ratio: float | None = None, layer_rates: Mapping[str, float] | None = None
    ) -> list[ParameterGroup]:
        """Return the optimizer groups `down` and `up`, and two more for each other rate that layers have.

        Args:
            lr: learning rate.
            loraplus_ratio: LoRA+ (Hayou et al. 2024) multiplies the rate of `up` by it.
            layer_rates: see `hv15.lora.rates.rates_of_layers`.

        Raises:
            UserError: a pattern in `layer_rates` is found in no layer, or only in those of earlier patterns.
        """
        rates = rates_of_layers(self.module_names, layer_rates or {}, lr)
        branches = [branch for branch in self.children() if isinstance(branch, LoRABranch)]
        groups: list[ParameterGroup] = []
        for rate in sorted(set(rates.values()), key=lambda rate: (rate != lr, rate)):
            chosen = [branch for branch, its in zip(branches, rates.values(), strict=True) if its == rate]
            end = "" if rate == lr else f" at {rate:g}"
            downs, ups = ([getattr(branch, part).weight for branch in chosen] for part in ("lora_down", "lora_up"))
            groups.append({"name": f"down{end}", "params": downs, "lr": rate})
            groups.append({"name": f"up{end}", "params": ups, "lr": rate * (loraplus_ratio or 1)})
        return groups

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> object:
        """Load tensors in kohya's layout, (rank, in), (out, rank) and (), with exactly these modules, rank and alpha.

        Raises:
            UserError: modules are missing or unknown, or a rank, size or alpha differs.
        """
        expected = self.state_dict()
        missing, unknown = ([k for k in a if k not in b] for a, b in ((expected, state_dict), (state_dict, expected)))
        if strict and (missing or unknown):
            parts = [
                f"{len(keys)} tensors {what}, first {keys[0]}"
                for keys, what in ((missing, "missing"), (unknown, "unexpected"))
                if keys
            ]
            raise UserError(
                f"network_weights: does not fit this network: {'; '.join(parts)}",
                hint="use the include_patterns and exclude_patterns of the run that made it, and convert it to kohya's "
                "layout (hv15 convert --reverse)",
            )
        for key in (name for name in expected if name in state_dict):
            if state_dict[key].shape != expected[key].shape:
                raise UserError(
                    f"network_weights: {key} is {list(state_dict[key].shape)}, expected {list(expected[key].shape)}",
                    hint=f"set train.network_dim ({self.rank}) to the file's rank, and use the same base model",
                )
            if key.endswith(".alpha") and state_dict[key].float() != expected[key]:  # in fp32, as in files
                raise UserError(
                    f"network_weights: {key} is {float(state_dict[key]):g}, but train.network_alpha is {self.alpha:g}",
                    hint=f"set train.network_alpha to {float(state_dict[key]):g}",
                )
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


def add_product(output: Tensor, hidden: Tensor, up: Tensor, scale: float) -> Tensor:
    """Add scale * hidden @ up^T to output, in place; output (..., out), hidden (..., rank), up (out, rank)."""
    hidden, up = hidden.to(output.dtype), up.to(output.dtype)
    if output.ndim == 3:  # one fused call; for a flattened view, autograd would copy the whole gradient
        return output.baddbmm_(hidden, up.t().expand(output.shape[0], -1, -1), alpha=scale)
    if output.ndim == 2:
        return output.addmm_(hidden, up.t(), alpha=scale)
    return output + F.linear(hidden, up) * scale


class _Hook(LowRankHook):
    """The forward hook of a layer with a branch."""

    def __init__(self, branch: LoRABranch) -> None:
        self.branch, self.scale = branch, branch.scale

    def __call__(self, _layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self.branch.add_to(output, args[0])

    @property
    def learned(self) -> tuple[Tensor, Tensor]:
        return self.branch.lora_down.weight, self.branch.lora_up.weight

    def factors(self, like: Tensor) -> tuple[Tensor, Tensor] | None:
        shared, down, up = self.branch.shared, self.branch.lora_down.weight, self.branch.lora_up.weight
        if self.branch.training and (shared.dropout or shared.rank_dropout or shared.module_dropout):
            return None
        if (cast := self.branch.cast) is not None and cast[0].dtype == like.dtype and cast[0].device == like.device:
            return cast
        return down.to(like.dtype), up.to(like.dtype)


def _mask(shape: Sequence[int], probability: float, like: Tensor, generator: torch.Generator) -> Tensor:
    kept = torch.rand(tuple(shape), generator=generator, device=like.device) >= probability
    return kept.to(like.dtype) / (1 - probability)


def _seed(seed: int, name: str) -> int:
    """Return 63 bits that depend only on both arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little") >> 1


def _check_sizes(rank: int, alpha: float, probabilities: Mapping[str, float]) -> None:
    if rank < 1:
        raise UserError(f"train.network_dim: {rank}; expected at least 1", hint="use for example 16 to 64")
    if not alpha > 0 or not math.isfinite(alpha):
        raise UserError(f"train.network_alpha: {alpha}; expected a positive number", hint="use for example the rank")
    for name, value in probabilities.items():
        if not 0 <= value < 1:
            key = "network_dropout" if name == "network" else f"{name}_dropout"
            raise UserError(f"train.{key}: {value}; expected at least 0 and below 1", hint="use 0 to switch it off")
