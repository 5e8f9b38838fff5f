"""Hooks that are called for each block in a transformer's passes.

    dit.block_hooks = (BlockSwap(dit.double_blocks, 20, "cuda"), ActivationOffload("cuda"))

Block swap, activation offload and the planner use them. They are called in the order of the tuple.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext


class BlockHook:
    """Called for each block of a pass. The methods do nothing here; a hook overrides those that it needs."""

    def around_blocks(self, *, recomputed: bool) -> AbstractContextManager[object]:
        """Return a context that is entered while the blocks compute in a forward pass.

        Args:
            recomputed: whether the backward pass will recompute each block (gradient checkpointing).
        """
        return nullcontext()

    def before_block(self, index: int) -> None:
        """Called before a block computes in the forward pass, and before it is recomputed in the backward pass."""

    def after_attention_backward(self, index: int) -> None:
        """Called in the backward pass of a block that is recomputed in windows, once it has freed most of its memory.

        Only the backward pass of norm, q, k and v remains.
        """

    def remove(self) -> None:
        """Undo the hook's changes to the blocks, before it is removed from the transformer."""


def visit_block(hooks: Iterable[BlockHook], index: int) -> None:
    """Have hooks bring a block to the device, as if it were about to compute, so that its weights can be read."""
    for hook in hooks:
        hook.before_block(index)
