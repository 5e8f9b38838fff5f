"""Gradient checkpointing of a block (Chen et al. 2016): the backward pass recomputes it, a window of tokens at a time.

Only the block's inputs are kept. For few tokens this is torch's own checkpointing. For many, the backward pass
processes one window of tokens at a time, each with its own small graph: MLP and projection, then attention as a
whole, then norm, q, k and v. At 720p x 121 frames, 12 copies of the tokens are in memory at a time, whereas a graph of
the whole block holds 34.

- It costs one more computation of q, k and v; the MLP is computed as often as with torch's checkpointing.
- Parameter gradients are first summed over the windows and reach `.grad` once for each block, so hooks on parameters
  see one finished gradient. The only difference from a pass without windows is the order of the sum over tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.utils.checkpoint import checkpoint

from hv15.models.attention import Attention
from hv15.models.blocks import DoubleBlock
from hv15.models.weights.block_hooks import BlockHook
from hv15.models.windows import inside, windows


@dataclass(frozen=True)
class BlockCall:
    """One call of a block: everything but the tensors that may have gradients."""

    block: DoubleBlock
    index: int
    """The block's number in the transformer."""
    rope: Tensor
    lengths: list[int]
    attention: Attention
    most_tokens: int
    """The largest number of image tokens in a window."""
    hooks: tuple[BlockHook, ...] = ()

    def __call__(self, img: Tensor, txt: Tensor, vec: Tensor) -> tuple[Tensor, Tensor]:
        """Call the hooks, then compute: img [B, N, hidden], txt [B, M, hidden], vec [B, hidden] -> img, txt."""
        self.tell_hooks()
        return self.compute(img, txt, vec)

    def tell_hooks(self) -> None:
        """Tell the hooks that the block is about to compute, in the forward or the backward pass."""
        for hook in self.hooks:
            hook.before_block(self.index)

    def compute(self, img: Tensor, txt: Tensor, vec: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the block without calling the hooks; shapes as in `__call__`."""
        return self.block(img, txt, vec, self.rope, self.lengths, self.attention, self.most_tokens)


def checkpointed(call: BlockCall, img: Tensor, txt: Tensor, vec: Tensor) -> tuple[Tensor, Tensor]:
    """Call a block and keep only its inputs for the backward pass; arguments, results and shapes as in the call."""
    if img.shape[1] <= call.most_tokens:
        # vec is the same for all blocks, so it is not an argument: saved-tensor hooks then see only the tokens.
        return checkpoint(lambda img, txt: call(img, txt, vec), img, txt, use_reentrant=False, preserve_rng_state=False)
    # The anchor needs a gradient, so autograd runs the backward pass for the parameters even if no other input does.
    call.tell_hooks()
    anchor = torch.empty(0, device=img.device, requires_grad=True)
    return _Recomputed.apply(call, anchor, img, txt, vec)


class _Context(FunctionCtx):
    """What the forward pass saves for the backward pass."""

    call: BlockCall
    saved_tensors: tuple[Tensor, Tensor, Tensor]
    needs_input_grad: tuple[bool, ...]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, call: BlockCall, _anchor: Tensor, img: Tensor, txt: Tensor, vec: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.call = call
        ctx.save_for_backward(img, txt, vec)
        ctx.set_materialize_grads(False)
        return call.compute(img, txt, vec)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: _Context, d_img: Tensor | None, d_txt: Tensor | None
    ) -> tuple[None, None, Tensor | None, Tensor | None, Tensor | None]:
        ctx.call.tell_hooks()
        return None, None, *_Backward(ctx.call)(ctx.saved_tensors, ctx.needs_input_grad[2:], d_img, d_txt)


class _Backward:
    """One backward pass of a block, stage by stage."""

    def __init__(self, call: BlockCall) -> None:
        self.call = call
        self.sums: dict[Tensor, Tensor] = {}
        """Gradients of the parameters and of the modulation, summed so far."""
        self.parameters: dict[str, list[Tensor]] = {}
        """The parameters that each stage depends on."""

    def __call__(
        self,
        inputs: Sequence[Tensor],
        needed: Sequence[bool],
        d_img: Tensor | None,
        d_txt: Tensor | None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Compute the gradients of img, txt and vec, where they are `needed`, from those of both outputs."""
        call, block, (img, txt, vec) = self.call, self.call.block, inputs
        parts, text = windows(img.shape[1], call.most_tokens), slice(img.shape[1], None)
        vec = vec.detach().requires_grad_(needed[2])
        with torch.enable_grad():
            made = (*block.img_mod(vec), *block.txt_mod(vec))
        mod = tuple(each.detach().requires_grad_(each.requires_grad) for each in made)
        img_mod, txt_mod = mod[:6], mod[6:]

        qkv = block.joint_qkv(img, txt, img_mod, txt_mod, call.rope, call.most_tokens)
        q, k, v = (each.requires_grad_() for each in qkv)
        with torch.enable_grad():
            attended = call.attention(q, k, v, [img.shape[1] + length for length in call.lengths])
        kept = attended.detach()
        # Complete after the first of the two stages that have a part in them.
        d_attended = torch.empty_like(attended)
        g_img, g_txt = (torch.empty_like(x) if need else None for x, need in zip((img, txt), needed, strict=False))

        for part in parts:
            x, d_out = img[:, part.slice], None if d_img is None else d_img[:, part.slice]
            with inside(part):
                found = self.back("img", block.image_out, [x, kept[:, part.slice]], [needed[0], True], img_mod, [d_out])
            _put(found, [g_img, d_attended], part.slice)
        found = self.back("txt", block.text_out, [txt, kept[:, text]], [needed[1], True], txt_mod, [d_txt])
        _put(found, [g_txt, d_attended[:, text]])

        d_qkv = torch.autograd.grad(attended, qkv, d_attended)
        del attended, kept, d_attended, qkv, q, k, v
        for hook in call.hooks:
            hook.after_attention_backward(call.index)
        for part in parts:
            run = partial(block.image_qkv, rope=call.rope[part.slice])
            with inside(part):
                d_part = [each[:, part.slice] for each in d_qkv]
                found = self.back("img_qkv", run, [img[:, part.slice]], needed[:1], img_mod, d_part)
            _add(found, [g_img], part.slice)
        found = self.back("txt_qkv", block.text_qkv, [txt], needed[1:2], txt_mod, [each[:, text] for each in d_qkv])
        _add(found, [g_txt])

        sums = [self.sums.pop(leaf, None) for leaf in mod]
        (g_vec,) = self.collect("mod", made, [vec], [], sums)
        if self.sums:
            leaves, gradients = list(self.sums), list(self.sums.values())
            self.sums.clear()
            with torch.enable_grad():
                given = _Given.apply(gradients, *leaves)
            given.backward()
        return g_img, g_txt, g_vec

    def back(
        self,
        stage: str,
        run: Callable[..., Tensor | tuple[Tensor, ...]],
        inputs: Sequence[Tensor],
        needed: Sequence[bool],
        mod: Sequence[Tensor],
        upstream: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Compute a stage in its own graph, run its backward pass, and return the gradients of its inputs."""
        leaves = [each.detach().requires_grad_(need) for each, need in zip(inputs, needed, strict=True)]
        with torch.enable_grad():
            outputs = run(*leaves, mod)
        return self.collect(stage, (outputs,) if isinstance(outputs, Tensor) else outputs, leaves, mod, upstream)

    def collect(
        self,
        stage: str,
        outputs: Sequence[Tensor],
        leaves: Sequence[Tensor],
        mod: Sequence[Tensor],
        upstream: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradients of leaves, and add those of modulation and parameters to the sums."""
        pairs = [(out, d) for out, d in zip(outputs, upstream, strict=True) if d is not None and out.requires_grad]
        if not pairs:
            return [None] * len(leaves)
        outputs, upstream = zip(*pairs, strict=True)
        if stage not in self.parameters:
            known = {id(each) for each in (*leaves, *mod)}
            self.parameters[stage] = [each for each in _leaves_behind(outputs) if id(each) not in known]
        summed = [each for each in mod if each.requires_grad] + self.parameters[stage]
        wanted = [each for each in leaves if each.requires_grad]
        found = iter(torch.autograd.grad(outputs, wanted + summed, upstream, allow_unused=True))
        gradients = [next(found) if each.requires_grad else None for each in leaves]
        new = {each: gradient for each, gradient in zip(summed, found, strict=True) if gradient is not None}
        again = [each for each in new if each in self.sums]
        if again:
            sums = torch._foreach_add([self.sums[each] for each in again], [new[each] for each in again])
            new.update(zip(again, sums, strict=True))
        self.sums.update(new)
        return gradients


class _Given(torch.autograd.Function):
    """Has given gradients. `torch.autograd.backward` would copy each, because its caller holds them, too."""

    @staticmethod
    def forward(ctx: _GivenContext, gradients: list[Tensor], *leaves: Tensor) -> Tensor:
        ctx.gradients = gradients
        return leaves[0].new_empty(())

    @staticmethod
    @once_differentiable
    def backward(ctx: _GivenContext, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients = tuple(ctx.gradients)
        ctx.gradients.clear()
        return None, *gradients


class _GivenContext(FunctionCtx):
    gradients: list[Tensor]


def _leaves_behind(outputs: Iterable[Tensor]) -> list[Tensor]:
    """Return the leaf tensors that get gradients from these outputs, in the order in which their graph is walked."""
    nodes = [out.grad_fn for out in outputs if out.grad_fn is not None]
    seen, found = set(nodes), []
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            found.append(node.variable)
        new = [following for following, _ in node.next_functions if following is not None and following not in seen]
        seen.update(new)
        nodes += dict.fromkeys(new)
    return found


def _put(gradients: Sequence[Tensor | None], to: Sequence[Tensor | None], place: slice = slice(None)) -> None:
    """Write gradients to their place; where there is none, it is zero."""
    for gradient, total in zip(gradients, to, strict=True):
        if total is not None:
            total[:, place].zero_() if gradient is None else total[:, place].copy_(gradient)


def _add(gradients: Sequence[Tensor | None], to: Sequence[Tensor | None], place: slice = slice(None)) -> None:
    for gradient, total in zip(gradients, to, strict=True):
        if gradient is not None and total is not None:
            total[:, place] += gradient
