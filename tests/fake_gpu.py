"""A GPU made of nothing: run real code at full size on a machine without a GPU, and see what a real one would punish.

Tensors of device `fakegpu:0` have a shape, a dtype and a device, and no data. What a real GPU would punish raises:
- mixing CPU and GPU tensors: FakeTensorDeviceMismatchError
- host syncs (.item(), bool(tensor), mask.nonzero(), slicing by a tensor): DataDependentOutputException and the like

It stands on an experimental torch interface. `Copies` sees which functions copy between the host and the device.

    gpu = FakeGPU(); model = gpu.put(model, torch.bfloat16)
    with gpu: training_step(model, {name: gpu.tensor(t) for name, t in batch.items()})
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_registered = False


class _Backend:
    """What torch asks a device's module for (autocast and checkpointing do)."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    @staticmethod
    def get_rng_state(device: object = None) -> Tensor:
        return torch.zeros(16, dtype=torch.uint8)

    @staticmethod
    def set_rng_state(state: Tensor, device: object = None) -> None: ...


class FakeGPU:
    """A device without data; enter it to run code there."""

    def __init__(self) -> None:
        global _registered
        if not _registered:
            _setup_privateuseone_for_python_backend("fakegpu", backend_module=_Backend)
            _registered = True
        self.device = torch.device("fakegpu:0")
        self.mode = FakeTensorMode()

    def __enter__(self) -> FakeGPU:
        self.mode.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.mode.__exit__(*exc)

    def tensor(self, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A data-less copy of `like` (any device, also meta) on the fake GPU."""
        meta = like.detach().to("meta", dtype if dtype and like.is_floating_point() else like.dtype)
        return FakeTensor(self.mode, meta, self.device)

    def empty(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return self.tensor(torch.empty(*shape, dtype=dtype, device="meta"))

    def put(self, module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
        """Moves parameters and buffers there (build the module under torch.device("meta"))."""
        for part in module.modules():
            for name, param in list(part._parameters.items()):
                if param is not None:
                    part._parameters[name] = nn.Parameter(self.tensor(param, dtype), requires_grad=param.requires_grad)
            for name, buffer in list(part._buffers.items()):
                if buffer is not None:
                    part._buffers[name] = self.tensor(buffer, dtype)
        return module


class Copies(TorchDispatchMode):
    """Which functions of ours copy between the host and the device: `seen` holds "module.function"."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func._schema.name
        if name in ("aten::_to_copy", "aten::copy_") and isinstance(result, Tensor):
            source = args[1] if name == "aten::copy_" else args[0]
            if source.ndim and {source.device.type, result.device.type} == {"cpu", "fakegpu"}:
                self.seen.add(_caller())
        return result


def _caller() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("hv15."):
            return f"{module.removeprefix('hv15.')}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "?"
