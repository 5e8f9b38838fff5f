"""The trained change of one linear layer, of each kind; it is a forward hook of the layer.

- The parameters have the names of a file's parts, and lie in fp32 on the layer's device.
- A new branch changes nothing: one of its matrices is zero. The others are drawn as LyCORIS draws them, from a
  generator that depends only on (seed, module name).
- Dropout masks depend only on (step seed, module name), so gradient checkpointing recomputes with the same masks.
- Nothing waits for the device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hv15.lora.dora import row_norms
from hv15.lora.dropout import Dropouts, seed_of
from hv15.lora.kinds import BASE_MAGNITUDE
from hv15.lora.products import (
    add_product,
    grown,
    hadamard_output,
    kronecker_output,
    scaled_change,
    squared_norm_of_product,
)
from hv15.lora.sizes import AdapterKind, Shapes
from hv15.models.adapted import LowRankHook
from hv15.models.weights.quantised import QuantisedLinear, plain_weight


class BranchPlace(NamedTuple):
    """The layer that a branch changes, and how large the branch is."""

    name: str
    """The layer's official name."""
    layer: nn.Linear | QuantisedLinear
    rank: int
    alpha: float
    kind: AdapterKind

    @property
    def shapes(self) -> Shapes:
        return self.kind.shapes(self.layer.out_features, self.layer.in_features, self.rank)


class Factor(nn.Module):
    """One of the two matrices of a LoRA, as a module so that its key ends in `.weight`."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


class Branch(nn.Module, ABC):
    """The trained change of one linear layer."""

    def __init__(self, place: BranchPlace, seed: int, shared: Dropouts) -> None:
        super().__init__()
        self.name, self.rank, self.shared = place.name, place.rank, shared
        self.scale = place.alpha / place.rank
        """The factor on the change."""
        self._shapes, self._device = place.shapes, place.layer.weight.device
        self._generator = torch.Generator().manual_seed(seed_of(seed, place.name))
        self.register_buffer("alpha", torch.tensor(place.alpha))

    has_strength = True
    """Whether alpha has an effect."""

    @property
    @abstractmethod
    def ups(self) -> list[nn.Parameter]:
        """The matrix that is zero at the start, which LoRA+ gives a higher learning rate."""

    @property
    def downs(self) -> list[nn.Parameter]:
        """All other parameters."""
        ups = set(self.ups)
        return [parameter for parameter in self.parameters() if parameter not in ups]

    @property
    @abstractmethod
    def factors(self) -> list[nn.Parameter]:
        """The matrices of which the change is a product."""

    @abstractmethod
    def squared_norm(self) -> Tensor:
        """Return the squared Frobenius norm, a scalar, of the change of the weight, without `scale`."""

    @property
    def hook(self) -> Hook | LowRankHook:
        """The forward hook that adds the branch's output to that of the layer."""
        return Hook(self)

    @abstractmethod
    def add_to(self, output: Tensor, x: Tensor, layer: nn.Module, hook: object) -> Tensor:
        """Add the branch's output for x (..., in) to the layer's output (..., out), which is overwritten.

        Args:
            hook: this one of the layer.
        """

    @property
    def _is_skipped(self) -> bool:
        """Whether module dropout skips this branch in this step."""
        return bool(self.training and self.shared.module_dropout and self.shared.skips(self.name))

    def _uniform(self, part: str) -> Tensor:
        """Draw a matrix as `kaiming_uniform_` with a = sqrt(5) does."""
        shape = self._shapes[part]
        bound = 1 / math.sqrt(shape[1])
        return torch.empty(shape).uniform_(-bound, bound, generator=self._generator).to(self._device)

    def _normal(self, part: str, spread: float) -> nn.Parameter:
        drawn = torch.empty(self._shapes[part]).normal_(0, spread, generator=self._generator)
        return nn.Parameter(drawn.to(self._device))

    def _zeros(self, part: str) -> Tensor:
        return torch.zeros(self._shapes[part], device=self._device)


class LoRABranch(Branch):
    """LoRA: up(down(x)) * alpha/rank."""

    def __init__(self, place: BranchPlace, seed: int, shared: Dropouts) -> None:
        super().__init__(place, seed, shared)
        self.lora_down = Factor(self._uniform("lora_down.weight"))
        self.lora_up = Factor(self._zeros("lora_up.weight"))
        self.cast: tuple[Tensor, Tensor] | None = None
        """Down (rank, in) and up (out, rank) in the DiT's dtype, as of the beginning of its last forward pass."""

    @property
    def ups(self) -> list[nn.Parameter]:
        return [self.lora_up.weight]

    @property
    def factors(self) -> list[nn.Parameter]:
        return [self.lora_down.weight, self.lora_up.weight]

    def squared_norm(self) -> Tensor:
        return squared_norm_of_product(self.lora_up.weight, self.lora_down.weight)

    @property
    def hook(self) -> Hook | LowRankHook:
        return _LowRankBranch(self)

    def add_to(self, output: Tensor, x: Tensor, layer: nn.Module, hook: object) -> Tensor:
        if self._is_skipped:
            return output
        return add_product(output, self.hidden(x), self.lora_up.weight, self.scale)

    def hidden(self, x: Tensor) -> Tensor:
        """Return the values between the two matrices, (..., rank), with dropout."""
        hidden = F.linear(x, self.lora_down.weight.to(x.dtype))
        if self.training and (self.shared.dropout or self.shared.rank_dropout):
            hidden = self.shared.mask(hidden, self.name)
        return hidden


class DoRABranch(LoRABranch):
    """A LoRA and a magnitude for each row of the weight, relative to the row's norm; see `hv15.lora.dora`."""

    norms: Tensor

    def __init__(self, place: BranchPlace, seed: int, shared: Dropouts) -> None:
        super().__init__(place, seed, shared)
        norms = row_norms(plain_weight(place.layer))
        self.register_buffer("norms", norms, persistent=False)
        self.register_parameter(BASE_MAGNITUDE, nn.Parameter(norms[:, None].clone()))

    @property
    def hook(self) -> Hook | LowRankHook:
        return Hook(self)

    def add_to(self, output: Tensor, x: Tensor, layer: nn.Module, hook: object) -> Tensor:
        if self._is_skipped:
            return output
        growth = self.get_parameter(BASE_MAGNITUDE)[:, 0] / self.norms - 1
        assert isinstance(layer, nn.Linear | QuantisedLinear)
        base = output_without_loras(layer, x, output, hook)
        if base is output:
            return grown(add_product(output, self.hidden(x), self.lora_up.weight, self.scale), layer, growth)
        change = F.linear(self.hidden(x) * self.scale, self.lora_up.weight.to(x.dtype))
        return output.add_(scaled_change(base, layer.bias, change, growth))


class LoHaBranch(Branch):
    """LoHa: x @ ((w1_a @ w1_b) * (w2_a @ w2_b))^T * alpha/rank."""

    def __init__(self, place: BranchPlace, seed: int, shared: Dropouts) -> None:
        super().__init__(place, seed, shared)
        self.hada_w1_b = self._normal("hada_w1_b", 1)
        self.hada_w1_a = self._normal("hada_w1_a", 0.1)
        self.hada_w2_b = self._normal("hada_w2_b", 1)
        self.hada_w2_a = nn.Parameter(self._zeros("hada_w2_a"))

    @property
    def ups(self) -> list[nn.Parameter]:
        return [self.hada_w2_a]

    @property
    def factors(self) -> list[nn.Parameter]:
        return [self.hada_w1_a, self.hada_w1_b, self.hada_w2_a, self.hada_w2_b]

    def squared_norm(self) -> Tensor:
        return ((self.hada_w1_a @ self.hada_w1_b) * (self.hada_w2_a @ self.hada_w2_b)).square().sum()

    def add_to(self, output: Tensor, x: Tensor, layer: nn.Module, hook: object) -> Tensor:
        if self._is_skipped:
            return output
        return _add_with_dropout(self, output, hadamard_output(x, self.factors, self.scale))


class LoKrBranch(Branch):
    """LoKr: x @ kron(w1, w2)^T, where w2 is whole, or two factors and the strength alpha/rank."""

    def __init__(self, place: BranchPlace, seed: int, shared: Dropouts) -> None:
        super().__init__(place, seed, shared)
        if "lokr_w2" in self._shapes:
            self.scale, self.has_strength = 1.0, False
            self.lokr_w2 = nn.Parameter(self._zeros("lokr_w2"))
        else:
            self.lokr_w2_a = nn.Parameter(self._uniform("lokr_w2_a"))
            self.lokr_w2_b = nn.Parameter(self._zeros("lokr_w2_b"))
        self.lokr_w1 = nn.Parameter(self._uniform("lokr_w1"))

    @property
    def w2(self) -> list[nn.Parameter]:
        """w2, or its two factors."""
        return [self.lokr_w2] if "lokr_w2" in self._shapes else [self.lokr_w2_a, self.lokr_w2_b]

    @property
    def ups(self) -> list[nn.Parameter]:
        return self.w2[-1:]

    @property
    def factors(self) -> list[nn.Parameter]:
        return [self.lokr_w1, *self.w2]

    def squared_norm(self) -> Tensor:
        inner = squared_norm_of_product(*self.w2) if len(self.w2) == 2 else self.lokr_w2.square().sum()
        return self.lokr_w1.square().sum() * inner

    def add_to(self, output: Tensor, x: Tensor, layer: nn.Module, hook: object) -> Tensor:
        if self._is_skipped:
            return output
        return _add_with_dropout(self, output, kronecker_output(x, self.lokr_w1, self.w2, self.scale))


class Hook:
    """A forward hook that calls a branch."""

    def __init__(self, branch: Branch) -> None:
        self.branch = branch

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Add the branch's output for x (..., in) to the layer's output (..., out)."""
        return self.branch.add_to(output, args[0], layer, self)


class _LowRankBranch(LowRankHook):
    """The forward hook of a layer with a LoRA, which can be computed together with the layer."""

    def __init__(self, branch: LoRABranch) -> None:
        self.branch, self.scale = branch, branch.scale

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self.branch.add_to(output, args[0], layer, self)

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


_BRANCHES: dict[str, type[Branch]] = {
    "lora": LoRABranch,
    "dora": DoRABranch,
    "loha": LoHaBranch,
    "lokr": LoKrBranch,
}


def make_branch(place: BranchPlace, seed: int, shared: Dropouts) -> Branch:
    """Return a new branch, which changes nothing yet."""
    return _BRANCHES[place.kind.type](place, seed, shared)


def plain_loras(branches: Iterable[nn.Module]) -> list[LoRABranch]:
    """Return those that can be computed together with their layers."""
    return [branch for branch in branches if isinstance(branch, LoRABranch) and not isinstance(branch, DoRABranch)]


def output_without_loras(layer: nn.Linear | QuantisedLinear, x: Tensor, output: Tensor, hook: object) -> Tensor:
    """Return a layer's output (..., out) for x (..., in) before any hook: `output`, if this hook is the first."""
    first = next(iter(layer._forward_hooks.values()), None)
    return output if first is hook else layer.forward(x)


def _add_with_dropout(branch: Branch, output: Tensor, change: Tensor) -> Tensor:
    """Add a LoHa's or LoKr's output (..., out), of which rank dropout zeroes rows of the weight."""
    if branch.training and branch.shared.rank_dropout:
        change = branch.shared.mask(change, branch.name)
    return output.add_(change)
