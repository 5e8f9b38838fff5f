"""What an optimizer keeps for a LoRA's matrices: by a step of the real one, on tensors without data.

The usual ones, of which `hv15 check` tells as well, are known, so that it needs no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from hv15.config.train import TrainSettings
from hv15.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_EIGHT_BIT = ("AdamW8bit", "PagedAdamW8bit")
_LEAST_EIGHT_BIT, _BLOCK, _MAP = 4096, 256, 2 * 256 * 4
"""bitsandbytes: the smallest matrix with state in 8 bits, the numbers that share a factor, bytes of the two tables from
8 bits to numbers, which all matrices share."""


def state_bytes(train: TrainSettings, matrices: Iterable[tuple[int, int]]) -> int:
    """Bytes of the state for matrices of these sizes (rows, columns).

    What depends on values counts with the most that it can be: Prodigy keeps a copy of a matrix that is not 0 at first.

    Raises:
        UserError: the optimizer refuses its arguments.
    """
    counts = Counter(matrices)
    if not train.optimizer_args and train.optimizer_type in ("AdamW", *_EIGHT_BIT):
        return _of_adamw(train.optimizer_type in _EIGHT_BIT, counts)
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


def _of_adamw(eight_bit: bool, counts: Counter[tuple[int, int]]) -> int:
    """Two numbers for each of a matrix; torch's own keeps the number of steps for each matrix, too."""
    total, tables = 0, 0
    for (rows, columns), count in counts.items():
        numbers = rows * columns
        if eight_bit and numbers >= _LEAST_EIGHT_BIT:
            total, tables = total + 2 * count * (numbers + 4 * -(-numbers // _BLOCK)), _MAP
        else:
            total += count * (8 * numbers + (0 if eight_bit else 4))
    return total + tables


def plannable(train: TrainSettings) -> TrainSettings:
    """Return the settings with an optimizer whose step can be run without data.

    AdamW takes the place of one that is not installed here, and of a class, given by its path, that reads values.

    Raises:
        UserError: the optimizer refuses its arguments.
    """
    from hv15.train.optimizer_packages import MissingPackage

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
    import torch

    from hv15.plan.kernels import WithoutData
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
    from torch import Tensor

    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(each)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
