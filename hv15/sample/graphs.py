"""CUDA graphs (`sample.cuda_graphs`): the kernels of a pass of the transformer are recorded, then started as one.

A recording repeats the same kernels on the same memory, so it is for one set of shapes, and the inputs of each pass are
copied to where it reads them. Numbers of valid tokens are host integers that choose kernels; they count as shapes.

- The first pass of a set of shapes is the warm-up. It is computed as usual, and makes what is made only once: compiled
  kernels, tables, a LoRA's factors on the device. The second is recorded.
- All recordings use the same memory for what they compute in between, because only one runs at a time.
- When the transformer is changed, as by other strengths of LoRAs, all recordings are dropped (`Replayed.forget`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from hv15.config.sample import SampleSettings
from hv15.errors import UserError
from hv15.models import Condition, PreparedCondition
from hv15.out_of_memory import is_out_of_memory
from hv15.sample.advice import obstacle_to_graphs

if TYPE_CHECKING:
    from hv15.models import DiT

Pass = Callable[[], Tensor]
"""A pass of the transformer on inputs that stay where they are: the velocity, [B, C, F, H, W]."""
_KEPT = 2
"""Recordings that are kept: of the two branches of guidance. The oldest is dropped first, however often it is used: so
it is dropped before the transformer's caches can drop a table that it reads."""


class PassRecorder(Protocol):
    """Runs and records passes."""

    def warm_up(self, run: Pass) -> Tensor:
        """Run a pass that will be recorded; return the velocity [B, C, F, H, W] in memory of its own."""

    def record(self, run: Pass) -> Pass:
        """Return what repeats a pass. It writes its output to the same memory each time."""

    def forget(self) -> None:
        """Called when all recordings have been dropped."""


class CudaRecorder:
    """Records CUDA graphs."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, run: Pass) -> Tensor:
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            output = run()
        current.wait_stream(self._stream)
        output.record_stream(current)
        return output

    def record(self, run: Pass) -> Pass:
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, pool=self._pool, stream=self._stream)  # frees what the warm-up has used
        # torch.cuda.graph stays on its stream if the recording fails; the outer block leaves it.
        with torch.cuda.stream(self._stream), recording:
            output = run()

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay

    def forget(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()  # a pool ends with the last graph in it


class StandIn:
    """Takes the recorder's place where there are no graphs, for plans and tests: repeats a pass by running it again."""

    def warm_up(self, run: Pass) -> Tensor:
        return run()

    def record(self, run: Pass) -> Pass:
        output = torch.zeros_like(run())
        return lambda: output.copy_(run())

    def forget(self) -> None:
        pass


class Replayed:
    """A transformer whose passes are recorded and repeated: called like the transformer, the same results.

    Args:
        dit: set up, with its LoRAs; without block swap, and not one of several ranks.
    """

    def __init__(self, dit: DiT, recorder: PassRecorder) -> None:
        self.config = dit.config
        self._dit, self._recorder = dit, recorder
        self._recordings: dict[_Shapes, _Recording] = {}

    @torch.no_grad()
    def prepare(self, cond: Condition) -> PreparedCondition:
        """Return the result of `DiT.prepare`. It is not recorded: it runs once for many passes."""
        return self._dit.prepare(cond)

    @torch.no_grad()
    def __call__(
        self, x: Tensor, timestep: Tensor, cond: Condition | PreparedCondition, timestep_r: Tensor | None = None
    ) -> Tensor:
        """Return the velocity [B, C, F, H, W]; the arguments are those of `DiT.forward`.

        Raises:
            UserError: the pass cannot be recorded.
        """
        inputs = _Inputs(x, timestep, cond, timestep_r)
        recording = self._recordings.get(inputs.shapes)
        if recording is None:
            while len(self._recordings) >= _KEPT:
                del self._recordings[next(iter(self._recordings))]
            recording = self._recordings[inputs.shapes] = _Recording(self._dit, inputs)
            return self._recorder.warm_up(recording.run)
        recording.take(inputs)
        if recording.replay is None:
            recording.replay = self._record(recording.run)
        return recording.replay().clone()

    def forget(self) -> None:
        """Drop all recordings: the transformer was changed."""
        self._recordings.clear()
        self._recorder.forget()

    def _record(self, run: Pass) -> Pass:
        try:
            return self._recorder.record(run)
        except RuntimeError as error:
            # Where a pass fails, the recording cannot be ended either, and only that error arrives.
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if is_out_of_memory(cause):
                raise cause from None
            raise UserError(
                f"sample.cuda_graphs: a pass of the transformer cannot be recorded: {str(cause).splitlines()[0]}",
                hint="set sample.cuda_graphs to false",
            ) from error


_Shapes = tuple[object, ...]


class _Inputs(NamedTuple):
    """The arguments of a pass."""

    x: Tensor
    timestep: Tensor
    cond: Condition | PreparedCondition
    timestep_r: Tensor | None

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, of any shapes."""
        given = self.x, self.timestep, self.timestep_r, *self.cond.tensors
        return [each for each in given if each is not None]

    @property
    def shapes(self) -> _Shapes:
        """What two passes have in common if one recording is right for both."""
        return (self.cond.lengths, *((each.shape, each.dtype) for each in self.tensors))

    def copied(self) -> _Inputs:
        """Return the same inputs in memory of their own."""
        r = None if self.timestep_r is None else self.timestep_r.clone()
        return _Inputs(self.x.clone(), self.timestep.clone(), self.cond.copied(), r)


class _Recording:
    """A pass for one set of shapes, and the memory of its inputs."""

    def __init__(self, dit: DiT, inputs: _Inputs) -> None:
        self._dit, self._inputs = dit, inputs.copied()
        self.replay: Pass | None = None

    def take(self, inputs: _Inputs) -> None:
        """Copy inputs to where the pass reads them."""
        for own, given in zip(self._inputs.tensors, inputs.tensors, strict=True):
            own.copy_(given)

    def run(self) -> Tensor:
        """Compute the pass."""
        return self._dit(*self._inputs)


def replayed(dit: DiT, settings: SampleSettings, device: torch.device) -> DiT | Replayed:
    """Return the transformer as the setting `cuda_graphs` asks: itself, or with its passes recorded.

    Args:
        dit: see `Replayed`.
        device: on the CPU the setting does nothing; on the meta device, where plans are made, a stand-in records.
    """
    if not settings.cuda_graphs or device.type == "cpu" or obstacle_to_graphs(settings) is not None:
        return dit
    return Replayed(dit, recorder_for(device))


def recorder_for(device: torch.device) -> PassRecorder:
    """Return what records on a device."""
    return CudaRecorder(device) if device.type == "cuda" else StandIn()
