"""The diffusion transformer of HunyuanVideo 1.5: latents, time and condition in, flow velocity out.

- 54 two-stream blocks, no single-stream blocks; patch size 1; the same network for t2v, i2v and super resolution.
- Only valid condition tokens are computed: text lengths are Python integers, and a batch of one has no padding.
- Attributes have the official checkpoint's key names, so its state dict loads unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hv15.models.attention import ATTENTION, Attention
from hv15.models.blocks import DoubleBlock, FinalLayer
from hv15.models.condition import Condition, pack
from hv15.models.context_parallel import ContextParallel
from hv15.models.dit_config import DiTConfig
from hv15.models.embeddings import GlyphMapper, PatchEmbed, TimestepEmbedder, VisionProjection
from hv15.models.prepared import PreparedCondition
from hv15.models.recompute import BlockCall, checkpointed
from hv15.models.refiner import TokenRefiner
from hv15.models.rope import RopeTables
from hv15.models.step_cache import StepCache
from hv15.models.weights.block_hooks import BlockHook
from hv15.models.weights.module import Module
from hv15.models.windows import MOST_TOKENS, SAMPLING_WINDOW

COMPILED = ("image_qkv", "text_qkv", "image_out", "text_out")  # methods of a block
RECOMPILE_LIMIT = 128
TEXT, GLYPH, VISION = 0, 1, 2  # rows of cond_type_embedding


class DiT(Module):
    """Predicts the velocity noise - data of noisy video latents."""

    gradient_checkpointing = False
    """Recompute each block in the backward pass instead of keeping its activations."""
    attention: Attention = ATTENTION
    """The attention that the blocks use."""
    block_attention: Mapping[int, Attention] = MappingProxyType({})
    """That of the blocks that use another one, by their numbers."""
    context_parallel: ContextParallel | None = None
    """The processes that compute each batch together, all of which call the model; None: this one alone."""
    block_hooks: tuple[BlockHook, ...] = ()
    """Called around each block, in this order: block swap, activation offload, planning."""
    step_cache: StepCache | None = None
    """What the blocks gave in earlier steps of a sample, of which some steps reuse a part; None: all compute all."""
    most_tokens = MOST_TOKENS
    """Most tokens, over all samples, that a block's norms, linears and MLP process at a time."""

    def __init__(self, config: DiTConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or DiTConfig()
        self.img_in = PatchEmbed(c.in_channels, c.hidden_size)
        self.txt_in = TokenRefiner(c.text_dim, c.hidden_size, c.num_heads, c.refiner_mlp_size, c.refiner_blocks)
        self.byt5_in = GlyphMapper(c.glyph_dim, c.glyph_hidden, c.hidden_size)
        self.vision_in = VisionProjection(c.vision_dim, c.hidden_size)
        # nn.Embedding's own initialisation, normal_, imports the compiler on the meta device, which takes a second.
        types = torch.empty(3, c.hidden_size).uniform_(-1, 1)
        self.cond_type_embedding = nn.Embedding.from_pretrained(types, freeze=False)
        self.time_in = TimestepEmbedder(c.hidden_size)
        self.time_r_in = TimestepEmbedder(c.hidden_size) if c.meanflow else None
        self.double_blocks = nn.ModuleList(
            DoubleBlock(c.hidden_size, c.num_heads, c.mlp_size) for _ in range(c.num_blocks)
        )
        self.final_layer = FinalLayer(c.hidden_size, c.latent_channels)
        self.rope_tables = RopeTables(c.rope_dims, c.rope_theta)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the unquantised layers and of the activations."""
        return self.img_in.proj.weight.dtype

    def forward(
        self, x: Tensor, timestep: Tensor, cond: Condition | PreparedCondition, timestep_r: Tensor | None = None
    ) -> Tensor:
        """Return the velocity of noisy latents.

        Args:
            x: [B, 2C+1, F, H, W]: noisy latents, condition latents, mask (see `hv15.models.latents`). For super
                resolution [B, 3C+2, F, H, W]: low-resolution latents and their mask follow.
            timestep: [B], 1000 * sigma, float.
            cond: text, glyphs and, for i2v, the image; for many steps with one condition the result of `prepare`.
            timestep_r: [B], the timestep at which this step ends; required by meanflow checkpoints, refused by others.

        Returns:
            [B, C, F, H, W] in the model's dtype.
        """
        if (timestep_r is None) == self.config.meanflow:
            raise ValueError("timestep_r is required with a meanflow checkpoint and not allowed with any other")
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        frames, height, width = x.shape[2:]
        rope = self.rope_tables((frames, height, width), x.device)
        most_tokens = max(self.most_tokens // x.shape[0], 1)
        if not torch.is_grad_enabled():
            most_tokens = int(SAMPLING_WINDOW * most_tokens)

        vec = self.time_in(timestep, self.dtype)  # (B, hidden)
        if self.time_r_in is not None:
            vec = vec + self.time_r_in(timestep_r, self.dtype)
        x, parallel = x.to(self.dtype), self.context_parallel
        if parallel is not None:
            x, rope = parallel.share(x.flatten(2), 2)[..., None, None], parallel.share(rope, 0)
        img = self.img_in(x)  # (B, F*H*W, hidden)
        prepared = self.prepare(cond) if isinstance(cond, Condition) else cond
        txt, lengths = self.condition_tokens(prepared, timestep)  # (B, M, hidden)
        attentions = [self.block_attention.get(index, self.attention) for index in range(len(self.double_blocks))]
        if parallel is not None:
            attentions = [parallel.attention(each, frames * height * width, txt.shape[1]) for each in attentions]
            txt = parallel.share(txt, 1)

        with ExitStack() as around:
            for hook in self.block_hooks:
                around.enter_context(hook.around_blocks(recomputed=recompute))
            calls = []
            for index, (block, attention) in enumerate(zip(self.double_blocks, attentions, strict=True)):
                assert isinstance(block, DoubleBlock)
                calls.append(BlockCall(block, index, rope, lengths, attention, most_tokens, self.block_hooks))
            if self.step_cache is not None:
                img = self.step_cache.run(calls, img, txt, vec)
            else:
                for call in calls:
                    img, txt = checkpointed(call, img, txt, vec) if recompute else call(img, txt, vec)

        velocity = self.final_layer(img, vec)  # (B, F*H*W, C)
        if parallel is not None:
            velocity = parallel.gather(velocity, frames * height * width)
        return velocity.transpose(1, 2).unflatten(2, (frames, height, width))

    if TYPE_CHECKING:
        __call__ = forward  # torch declares that a module takes and gives anything

    def compile_blocks(
        self,
        mode: str = "default",
        dynamic: bool | None = None,
        backend: str = "inductor",
        *,
        fullgraph: bool = False,
    ) -> None:
        """Compile what the blocks compute before and after attention; the arguments are those of torch.compile."""
        self.uncompile_blocks()
        # All blocks share the compiled code, but each bucket size needs its own, with gradients and without.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
        # LoRAs may be added, changed and removed later. By default, code that was compiled before would be used.
        torch._dynamo.config.skip_nnmodule_hook_guards = False
        mode_or_none = mode if backend == "inductor" else None  # no other backend has modes
        for block in self.double_blocks:
            for name in COMPILED:
                function = torch.compile(
                    getattr(block, name), fullgraph=fullgraph, dynamic=dynamic, backend=backend, mode=mode_or_none
                )
                setattr(block, name, function)

    def uncompile_blocks(self) -> None:
        """Undo `compile_blocks`."""
        for block in self.double_blocks:
            for name in COMPILED:
                block.__dict__.pop(name, None)

    def prepare(self, cond: Condition) -> PreparedCondition:
        """Return what a condition gives in all passes, whatever the latents and the timestep.

        It holds until weights or LoRAs are changed.
        """
        kind = self.cond_type_embedding.weight  # (3, hidden)
        others, lengths = [], []
        if cond.vision is not None:
            others.append(self.vision_in(cond.vision.to(self.dtype)) + kind[VISION])
            lengths.append(cond.vision_lengths or [cond.vision.shape[1]] * cond.batch)
        if (most := max(cond.glyph_lengths)) > 0:
            others.append(self.byt5_in(cond.glyphs[:, :most].to(self.dtype)) + kind[GLYPH])
            lengths.append(cond.glyph_lengths)
        text = cond.text[:, : max(cond.text_lengths)].to(self.dtype)
        prepared = self.txt_in.prepare(text, cond.text_lengths)
        return PreparedCondition(tuple(others), tuple(lengths), prepared, cond.text_lengths)

    def condition_tokens(self, cond: PreparedCondition, timestep: Tensor) -> tuple[Tensor, list[int]]:
        """Return each sample's valid condition tokens [B, M, hidden] (vision, glyphs, text) and their numbers."""
        text = self.txt_in(cond.text, timestep, cond.text_lengths) + self.cond_type_embedding.weight[TEXT]
        return pack([*zip(cond.others, cond.other_lengths, strict=True), (text, cond.text_lengths)])
