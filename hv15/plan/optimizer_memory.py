"""What an optimizer keeps for a LoRA's matrices: by a step of the real one, on tensors without data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from hv15.config.train import TrainSettings
from hv15.errors import UserError
from hv15.plan.kernels import WithoutData


def state_bytes(train: TrainSettings, matrices: Iterable[tuple[int, int]]) -> int:
    """Bytes of the state for matrices of these sizes (rows, columns).

    What depends on values counts with the most that it can be: Prodigy keeps a copy of a matrix that is not 0 at first.

    Raises:
        UserError: the optimizer refuses its arguments.
    """
    counts = Counter(matrices)
    # Two of a size, if there are any, tell what they share.
    state = _state_after_a_step(
        plannable(train), [size for size, count in counts.items() for _ in range(min(count, 2))]
    )
    owners = Counter(_storage(tensor) for _, tensors in state for tensor in tensors)
    each = {size: sum(_bytes(tensor) for tensor in tensors if owners[_storage(tensor)] == 1) for size, tensors in state}
    shared = {_storage(tensor): _bytes(tensor) for _, tensors in state for tensor in tensors}
    return sum(each[size] * count for size, count in counts.items()) + sum(
        size for storage, size in shared.items() if owners[storage] > 1
    )


def plannable(train: TrainSettings) -> TrainSettings:
    """Return the settings with an optimizer whose step can be run without data.

    AdamW takes the place of one that is not installed here, and of a class, given by its path, that reads values.

    Raises:
        UserError: the optimizer refuses its arguments.
    """
    from hv15.train.optimizer_classes import MissingPackage

    try:
        _state_after_a_step(train, [(4, 8)])
    except Exception as error:
        if isinstance(error, UserError) and not isinstance(error, MissingPackage):
            raise
        return train.model_copy(update={"optimizer_type": "AdamW", "optimizer_args": {}})
    return train


def keep_out_of_pages(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer with paged state keep it in plain memory: pages need a GPU, and count as much where it has room.

    Only bitsandbytes has such optimizers.
    """
    if hasattr(optimizer, "is_paged"):
        optimizer.is_paged = False


def _state_after_a_step(
    train: TrainSettings, sizes: Sequence[tuple[int, int]]
) -> list[tuple[tuple[int, int], list[Tensor]]]:
    """(size, the tensors of its state) of each matrix."""
    from hv15.train.optimizers import make_optimizer

    with WithoutData():
        parameters = [torch.nn.Parameter(torch.zeros(size, device="meta")) for size in sizes]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        groups = [{"params": parameters, "lr": train.learning_rate}]
        optimizer = make_optimizer(train.optimizer_type, groups, train.optimizer_args)
        keep_out_of_pages(optimizer)
        optimizer.step()
    return [
        (size, list(_tensors(optimizer.state[parameter]))) for size, parameter in zip(sizes, parameters, strict=True)
    ]


def _tensors(value: object) -> Iterator[Tensor]:
    """All tensors in a state."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(each)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
