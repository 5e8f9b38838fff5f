"""One two-stream block at the real width, forward and backward, against diffusers' block in the same run.

    python bench/bench_dit.py [--image-tokens 512] [--text-tokens 64] [--rounds 9]

Both hold the same weights and get the same inputs; their runs are interleaved, and the medians are compared, so that a
busy machine slows both alike. LoRA training needs gradients of the inputs only, so that is timed, too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from diffusers.models.transformers.transformer_hunyuan_video15 import HunyuanVideo15TransformerBlock
from torch import Tensor

from hv15.models.blocks import DoubleBlock
from hv15.models.layouts import reading_recipes
from hv15.models.rope import rope_table

Step = Callable[[], list[Tensor]]


def make_steps(image_tokens: int, text_tokens: int, *, weights_learn: bool) -> tuple[Step, Step]:
    """One forward and backward of each implementation, giving its image output and its input gradient."""
    torch.manual_seed(0)
    theirs = HunyuanVideo15TransformerBlock(16, 128, mlp_ratio=4.0, qk_norm="rms_norm").requires_grad_(weights_learn)
    with torch.device("meta"):
        ours = DoubleBlock(2048, 16, 8192)
    weights = theirs.state_dict()
    recipes = reading_recipes("diffusers", [f"double_blocks.0.{key}" for key in ours.state_dict()])
    ours.load_state_dict(
        {
            key.removeprefix("double_blocks.0."): recipe.make(
                lambda name: weights[name.removeprefix("transformer_blocks.0.")]
            ).clone()
            for key, recipe in recipes.items()
        },
        assign=True,
    )
    ours.requires_grad_(weights_learn)
    img, txt = torch.randn(1, image_tokens, 2048), torch.randn(1, text_tokens, 2048)
    vec, upstream = torch.randn(1, 2048), torch.randn(1, image_tokens, 2048)
    grid = (image_tokens // 64, 8, 8)
    rope = rope_table(grid, (16, 56, 56), 256.0)
    cos, sin = (part.squeeze(1).repeat_interleave(2, dim=-1).contiguous() for part in (rope.real, rope.imag))
    mask = torch.ones(1, text_tokens, dtype=torch.bool)  # diffusers always gets one

    def run(block: torch.nn.Module, forward: Callable[[Tensor], Tensor]) -> list[Tensor]:
        block.zero_grad(set_to_none=True)
        x = img.clone().requires_grad_()
        out = forward(x)
        out.backward(upstream)
        assert x.grad is not None
        return [out.detach(), x.grad]

    return (
        lambda: run(ours, lambda x: ours(x, txt, vec, rope, [text_tokens])[0]),
        lambda: run(theirs, lambda x: theirs(x, txt, vec, mask, (cos, sin))[0]),
    )


def compare(name: str, ours: Step, theirs: Step, rounds: int) -> float:
    difference = max((a - b).abs().max().item() for a, b in zip(ours(), theirs(), strict=True))
    times: dict[str, list[float]] = {"ours": [], "diffusers": []}
    for _ in range(rounds):
        for label, step in (("ours", ours), ("diffusers", theirs)):
            start = time.perf_counter()
            step()
            times[label].append(time.perf_counter() - start)
    median = {label: statistics.median(values) for label, values in times.items()}
    ratio = median["ours"] / median["diffusers"]
    print(
        f"{name:<28} ours {median['ours'] * 1e3:7.1f} ms   diffusers {median['diffusers'] * 1e3:7.1f} ms"
        f"   ratio {ratio:.3f}   largest difference {difference:.1e}"
    )
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-tokens", type=int, default=512, help="a multiple of 64")
    parser.add_argument("--text-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    print(f"width 2048, {given.image_tokens} + {given.text_tokens} tokens, fp32, {torch.get_num_threads()} threads")
    for name, weights_learn in (("forward + backward, all", True), ("forward + backward, frozen", False)):
        steps = make_steps(given.image_tokens, given.text_tokens, weights_learn=weights_learn)
        compare(name, *steps, given.rounds)
        del steps


if __name__ == "__main__":
    main()
