"""A trainable LoRA, of any kind, on the linear layers of a frozen DiT.

- It uses forward hooks: the DiT keeps its modules and names, so quantised linears, block swap and `.weight` keep
  working, and `detach` removes it completely. Blocks do not call the hooks of plain LoRAs, but compute a layer and its
  branch as one operation (`hv15.models.adapted`).
- The parameters are in the network, in fp32. Those of plain LoRAs are cast to the DiT's dtype once, when its forward
  pass begins.
- Its output is added to the layer's in place, without a second tensor of that size. The layer is frozen, so its own
  output is not needed afterwards.
- Random numbers do not depend on a global state, see `hv15.lora.branches`, which has the kinds.
- `state_dict()` has kohya's names, as in files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hv15.errors import UserError
from hv15.lora.apply import hooks_of
from hv15.lora.branches import Branch, BranchPlace, make_branch, plain_loras
from hv15.lora.changes import WeightChange
from hv15.lora.dropout import Dropouts
from hv15.lora.names import kohya_name, select_modules
from hv15.lora.rates import rates_of_layers
from hv15.lora.sizes import AdapterKind
from hv15.models.dit_files import block_number
from hv15.models.weights.block_hooks import visit_block


class ParameterGroup(TypedDict):
    """Parameters with their learning rate, in the form that torch's optimizers expect."""

    name: str
    params: list[nn.Parameter]
    lr: float


class LoRANetwork(nn.Module):
    """LoRA on the 14 linear layers of every double block (756 in the real model), or on those that patterns choose.

    Args:
        dit: the model; it is frozen (`requires_grad` is switched off) and hooked immediately.
        rank, alpha: the strength is alpha/rank; of all layers, or of each by official name, which chooses the layers.
        kind: LoRA, DoRA, LoHa or LoKr.
        dropout: probability of zeroing an element of the output of `down`.
        rank_dropout: probability of zeroing a rank for a sample.
        module_dropout: probability of skipping a module in a step.
        include, exclude: see `select_modules`; only if the ranks do not choose the layers.
        seed: of the initial values, which depend only on it and on the module's name.

    Raises:
        UserError: a pattern matches nothing, or a rank, alpha or probability is out of range.
    """

    def __init__(
        self,
        dit: nn.Module,
        *,
        rank: int | Mapping[str, int],
        alpha: float | Mapping[str, float],
        kind: AdapterKind | None = None,
        dropout: float = 0.0,
        rank_dropout: float = 0.0,
        module_dropout: float = 0.0,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        modules = dict(dit.named_modules())
        self.module_names = [*rank] if isinstance(rank, Mapping) else select_modules(modules, include, exclude)
        """Official names of the trained modules, in the model's order."""
        ranks = rank if isinstance(rank, Mapping) else dict.fromkeys(self.module_names, rank)
        alphas = alpha if isinstance(alpha, Mapping) else dict.fromkeys(self.module_names, float(alpha))
        probabilities = {"network": dropout, "rank": rank_dropout, "module": module_dropout}
        for name in self.module_names:
            _check_sizes(ranks[name], alphas[name], probabilities)
        self.shared = Dropouts(dropout, rank_dropout, module_dropout)
        self._hooks: list[tuple[nn.Module, Callable[..., Tensor]]] = []
        self._beneath: list[tuple[nn.Module, Callable[..., Tensor]]] = []
        self._handles: list[RemovableHandle] = []
        self._copies: list[Tensor] = []
        dit.requires_grad_(False)
        kind = kind or AdapterKind()
        visited = -1
        for name in self.module_names:
            if kind.type == "dora" and (block := block_number(name)) != visited:
                visit_block(getattr(dit, "block_hooks", ()), block)  # weights are read that may be in CPU memory
                visited = block
            # Quantised linears are not nn.Linear, but have the attributes that are used.
            place = BranchPlace(name, modules[name], ranks[name], alphas[name], kind)
            branch = make_branch(place, seed, self.shared)
            self.add_module(kohya_name(name), branch)
            self._hooks.append((modules[name], branch.hook))
        self._attach(dit)

    @property
    def branches(self) -> list[Branch]:
        """The trained changes, one for each module, in the same order."""
        return [branch for branch in self.children() if isinstance(branch, Branch)]

    @torch.no_grad()
    def _cast(self, dit: nn.Module, _args: tuple[object, ...] = ()) -> None:
        """Cast the matrices of plain LoRAs to the DiT's dtype, as a hook that is called before its forward pass."""
        branches = plain_loras(self.children())
        matrices: list[Tensor] = [branch.lora_down.weight for branch in branches]
        matrices += [branch.lora_up.weight for branch in branches]
        dtype = getattr(dit, "dtype", torch.float32)
        if not matrices or dtype == matrices[0].dtype:
            return
        device = matrices[0].device
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

    @contextmanager
    def switched_off(self, dit: nn.Module) -> Iterator[None]:
        """Let the model compute for a while as if this LoRA were not there; what lies beneath it stays."""
        self.detach()
        self._register(self._beneath)
        try:
            yield
        finally:
            self.detach()
            self._attach(dit)

    def add_beneath(self, dit: nn.Module, changes: Mapping[str, WeightChange], multiplier: float) -> None:
        """Let changes of layers act beneath this LoRA, which are not trained, and are attached and detached with it.

        Raises:
            UserError: the model lacks a module or has another size.
        """
        added = hooks_of(dit, changes, multiplier)
        self._beneath += added
        self._register(added)

    def _register(self, hooks: Iterable[tuple[nn.Module, Callable[..., Tensor]]]) -> None:
        self._handles += [layer.register_forward_hook(hook) for layer, hook in hooks]

    def _attach(self, dit: nn.Module) -> None:
        self._register(self._hooks)
        self._register(self._beneath)
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
        groups: list[ParameterGroup] = []
        for rate in sorted(set(rates.values()), key=lambda rate: (rate != lr, rate)):
            chosen = [branch for branch, its in zip(self.branches, rates.values(), strict=True) if its == rate]
            end = "" if rate == lr else f" at {rate:g}"
            downs, ups = ([each for branch in chosen for each in getattr(branch, of)] for of in ("downs", "ups"))
            groups.append({"name": f"down{end}", "params": downs, "lr": rate})
            groups.append({"name": f"up{end}", "params": ups, "lr": rate * (loraplus_ratio or 1)})
        return groups

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> object:
        """Load tensors in kohya's layout, with exactly the modules, shapes, ranks and alphas of `state_dict()`.

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
            branch = self.get_submodule(key.partition(".")[0])
            assert isinstance(branch, Branch)
            if state_dict[key].shape != expected[key].shape:
                raise UserError(
                    f"network_weights: {key} is {list(state_dict[key].shape)}, expected {list(expected[key].shape)}",
                    hint=f"set train.network_dim ({branch.rank}) to the file's rank, and use the same base model",
                )
            is_strength = key.endswith(".alpha") and branch.has_strength
            if is_strength and state_dict[key].float() != expected[key]:  # in fp32, as in files
                raise UserError(
                    f"network_weights: {key} is {float(state_dict[key]):g}, but train.network_alpha is "
                    f"{float(expected[key]):g}",
                    hint=f"set train.network_alpha to {float(state_dict[key]):g}",
                )
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


def _check_sizes(rank: int, alpha: float, probabilities: Mapping[str, float]) -> None:
    if rank < 1:
        raise UserError(f"train.network_dim: {rank}; expected at least 1", hint="use for example 16 to 64")
    if not alpha > 0 or not math.isfinite(alpha):
        raise UserError(f"train.network_alpha: {alpha}; expected a positive number", hint="use for example the rank")
    for name, value in probabilities.items():
        if not 0 <= value < 1:
            key = "network_dropout" if name == "network" else f"{name}_dropout"
            raise UserError(f"train.{key}: {value}; expected at least 0 and below 1", hint="use 0 to switch it off")
