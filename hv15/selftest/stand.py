"""Where the checks run: the device, its clock, random models and numbers on it, and what is known about it so far."""

from __future__ import annotations

import gc
import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from hv15.memory import WEIGHTS, PeakMemory
from hv15.models.weights.quantised import QuantisedLinear
from hv15.precision import pick_dtype, pick_encoder_dtype
from hv15.records.device_rates import DeviceRates
from hv15.selftest.clock import Clock, clock_of
from hv15.selftest.planned import PlannedCosts
from hv15.selftest.sizes import Sizes

Network = TypeVar("Network", bound=nn.Module)

DRIVER = Path("/proc/driver/nvidia/version")
"""Where the driver says which one it is."""


CPU = torch.device("cpu")


class Skipped(Exception):  # noqa: N818  # not an error
    """A check cannot be made here; the text says why."""


class Wrong(Exception):  # noqa: N818  # the device's, not the program's
    """A check has found something wrong other than a difference of numbers; the text says what."""


@dataclass
class Stand:
    """The device under test.

    Args:
        has_data: False for a device of tensors without data: everything runs, and nothing is compared.
        plans: what the planner says, for comparison; None: it is not asked.
    """

    device: torch.device
    sizes: Sizes
    folder: Path
    """For files that checks write and read."""
    has_data: bool = True
    plans: PlannedCosts | None = None
    rates: DeviceRates = field(init=False)
    clock: Clock = field(init=False)
    _held: tuple[str, nn.Module] | None = field(default=None, init=False)
    """The last model of full size, and its name."""

    def __post_init__(self) -> None:
        self.clock = clock_of(self.device, has_data=self.has_data)
        self.rates = DeviceRates(device=device_name(self.device), memory=self.memory, torch=str(torch.__version__))

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the transformer."""
        return pick_dtype("auto", self.device) if self._is_real else torch.bfloat16

    @property
    def encoder_dtype(self) -> torch.dtype:
        """The number format of the VAE and of the text encoders."""
        return pick_encoder_dtype("auto", self.device) if self._is_real else torch.float16

    @property
    def memory(self) -> int:
        """Bytes of the device; those of the machine for its processor."""
        if self.on_cuda:
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    @property
    def _is_real(self) -> bool:
        return self.device.type in ("cpu", "cuda")

    def full_size(self, name: str, make: Callable[[], Network]) -> Network:
        """Return the model of full size of this name, which is made unless it was the last one: one fits at a time."""
        if self._held is None or self._held[0] != name:
            self.drop()
            self._held = name, make()
        return cast("Network", self._held[1])

    def drop(self) -> None:
        """Free the model of full size."""
        self._held = None
        self.release()

    def answers(self) -> bool:
        """Whether the device still computes: after some errors, every operation of the process fails."""
        try:
            return not self.has_data or bool(torch.ones(1, device=self.device).item())
        except RuntimeError:
            return False

    def learn(self, **rates: float | None) -> None:
        """Keep rates of the device; see `DeviceRates`."""
        self.rates = replace(self.rates, **{name: value for name, value in rates.items() if value is not None})  # type: ignore[arg-type]  # each has its field's type

    def randn(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Normal random numbers of this shape on the device, in the transformer's dtype if none is given."""
        return torch.randn(shape, device=self.device, dtype=dtype or self.dtype)

    def random(self, build: Callable[[], Network], dtype: torch.dtype) -> Network:
        """A frozen network with random weights in a dtype, made on the device without a second copy of them."""
        with torch.device("meta"), _default_dtype(dtype):
            network = build()
        network.requires_grad_(False).eval()
        for module in network.modules():
            if isinstance(module, QuantisedLinear):
                shape = (module.out_features, module.in_features)
                module.quantise_(self.randn(*shape, dtype=dtype).div_(module.in_features**0.5))
                if module.bias is not None:
                    module.bias = nn.Parameter(self.randn(module.out_features, dtype=dtype) / 50, requires_grad=False)
                continue
            for name, parameter in module.named_parameters(recurse=False):
                made = nn.Parameter(self._random_weight(name, parameter), requires_grad=False)
                setattr(module, name, made)
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_meta:  # a table that its owner fills
                    module.register_buffer(name, torch.empty_like(buffer, device=self.device), persistent=False)
        return network

    def _random_weight(self, name: str, parameter: Tensor) -> Tensor:
        """Weights with which activations keep their size through any number of layers."""
        shape, dtype = tuple(parameter.shape), parameter.dtype
        if parameter.ndim > 1:
            return self.randn(*shape, dtype=dtype).div_((parameter.numel() / shape[0]) ** 0.5)
        if "weight" in name or "gamma" in name:
            return torch.ones(shape, dtype=dtype, device=self.device)
        return self.randn(*shape, dtype=dtype).div_(50)

    def peak_memory(self, work: Callable[[], object], *held: nn.Module | Tensor) -> int | None:
        """Bytes of tensors at the peak of the work.

        Args:
            held: what is in memory before, of any shape: models, an optimizer's state.
        """
        if not self.has_data:
            return None
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            work()
            self.clock.wait()
            return int(torch.cuda.max_memory_allocated(self.device))
        memory = PeakMemory(self.device.type)
        with memory:
            memory.assign(WEIGHTS, *held)
            work()
        return memory.peak

    def error(self, found: Tensor, expected: Tensor) -> float | None:
        """The norm of the difference relative to that of `expected`; both of the same shape, on any device."""
        if not self.has_data:
            return None
        wanted = expected.detach().double().cpu()
        difference = (found.detach().double().cpu() - wanted).norm()
        return float(difference / wanted.norm().clamp_min(1e-300))

    def difference(self, found: Tensor, expected: Tensor) -> float | None:
        """0 if the bits are equal, else the `error`, or what is next to 0; both of the same shape, on any device."""
        if not self.has_data or torch.equal(found.detach().cpu(), expected.detach().cpu()):
            return 0.0 if self.has_data else None
        return max(self.error(found, expected) or 0.0, 5e-324)

    def release(self) -> None:
        """Free what is no longer used."""
        gc.collect()
        if self.on_cuda:
            torch.cuda.empty_cache()


def moved(network: Network, device: torch.device, dtype: torch.dtype | None = None) -> Network:
    """Move a frozen network to a device, and its weights, not its tables, to a dtype if one is given.

    `Module.to` does not move weights between devices of which one has no data.
    """
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().to(device, dtype), requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    return network


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def device_name(device: torch.device) -> str:
    """The device as its driver names it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def machine_facts(device: torch.device) -> dict[str, str]:
    """The machine in words."""
    facts = {
        "torch": str(torch.__version__),
        "Python": platform.python_version(),
        "system": platform.platform(),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
    }
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        facts |= {"CUDA": str(torch.version.cuda), "capability": f"{major}.{minor}", "driver": _driver()}
    else:
        facts["instructions"] = torch.backends.cpu.get_cpu_capability()
    return facts


def _driver() -> str:
    """The version of NVIDIA's kernel module, which needs no package to be read."""
    try:
        found = re.search(r"Kernel Module.*?(\d+\.\d[\d.]*)", DRIVER.read_text())
    except OSError:
        found = None
    return found[1] if found else "unknown"
