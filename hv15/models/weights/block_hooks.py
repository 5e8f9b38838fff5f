"""How other code takes part in a transformer's passes, block by block.

    dit.block_hooks = (BlockSwap(dit.double_blocks, 20, "cuda"), ActivationOffload("cuda"))

Used by block swap, by activation offload, and by the planner. The hooks are called in their order; a transformer
without hooks makes no calls.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext


class BlockHook:
    """Is told about each block of a pass. Each method does nothing here; a hook overrides those that it needs."""

    def around_blocks(self, *, recomputed: bool) -> AbstractContextManager[object]:
        """Return a context that is held while all blocks compute in a forward pass.

        Args:
            recomputed: the backward pass will compute each block again (gradient checkpointing).
        """
        return nullcontext()

    def before_block(self, index: int) -> None:
        """Called before a block computes: in the forward pass, and again in the backward pass if it is recomputed."""

    def after_attention_backward(self, index: int) -> None:
        """Called in the backward pass of a block that is recomputed in windows, when it has freed most of its memory.

        What remains is the way back through norm, q, k and v.
        """

    def remove(self) -> None:
        """Undo what the hook changed in the blocks, before it is taken off the transformer."""
