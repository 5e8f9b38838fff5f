"""The numbers of the transformer: right where they are rounded, the same bits where they must be equal.

Bits are compared with an attention that gives the same bits each time, so that a difference is of what is compared.
"""

from __future__ import annotations

from functools import cached_property, partial

import torch
from torch import Tensor

from hv15.models import Condition, DiT
from hv15.models.pass_kernels import triton_works
from hv15.noise.levels import TIMESTEPS
from hv15.records.selftest import Measured
from hv15.sample.denoise import denoise, stack_conditions
from hv15.sample.graphs import Replayed, recorder_for
from hv15.selftest.bounds import bound, doubled, judged, transformer_roundings
from hv15.selftest.checks import MachineCheck
from hv15.selftest.layers import attention_checks, weight_checks
from hv15.selftest.rounded import HALVES, ROUNDED_ATTENTION, RoundedProducts
from hv15.selftest.sizes import NUMBERS_DIT
from hv15.selftest.stand import CPU, Skipped, Stand, moved
from hv15.selftest.training import REPEATABLE, Options, random_condition, random_example, repeatable, training
from hv15.train.examples import Example

BLOCKS = NUMBERS_DIT.num_blocks
Latent = tuple[int, int, int]
LEVELS = torch.linspace(1.0, 0.0, 5)
"""Noise levels of a sample of four steps. Made here, where they have numbers whatever device is under test."""
PLAIN: Options = {"gradient_checkpointing": False}
OFFLOAD: Options = {"gradient_checkpointing_cpu_offload": True}


def number_checks(stand: Stand) -> list[MachineCheck]:
    """The checks of this part, but for the VAE and the encoders, and those that take long."""
    numbers, sizes = TransformerNumbers(stand), stand.sizes
    return [
        MachineCheck("numbers", "transformer", numbers.forward, 3),
        MachineCheck("numbers", "gradients of a LoRA", numbers.backward, 3),
        MachineCheck("numbers", "fused kernels", numbers.fused, 5),
        MachineCheck("numbers", "two runs of a training step: equal bits", numbers.two_runs, 2),
        *(
            MachineCheck("numbers", f"{name}: equal bits", partial(numbers.equal, options, latent), 2)
            for name, options, latent in (
                ("checkpointing", {}, sizes.compared),
                ("swap", {"blocks_to_swap": 1}, sizes.compared),
                ("swap and offload", {"blocks_to_swap": 1, **OFFLOAD}, sizes.offloaded),
            )
        ),
        *attention_checks(stand),
        MachineCheck("numbers", "attention: split", numbers.split, 2),
        MachineCheck("numbers", "windows of tokens", numbers.windows, 2),
        MachineCheck("numbers", "checkpointing in windows", numbers.checkpointed_windows, 2),
        MachineCheck("numbers", "texts of unequal lengths in a batch", numbers.unequal_lengths, 2),
        MachineCheck("numbers", "guidance as one batch", numbers.guidance_batch, 2),
        MachineCheck("numbers", "CUDA graphs: equal bits", numbers.graphs, 3),
        *weight_checks(stand),
    ]


def slow_checks(stand: Stand) -> list[MachineCheck]:
    """Checks that would take the time of others that say more."""
    return [MachineCheck("numbers", "compile", TransformerNumbers(stand).compiled, 40 if stand.on_cuda else 5)]


class TransformerNumbers:
    """A small transformer on the device, in its dtype, and on the CPU in fp32, with the same weights."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        frames, height, width = stand.sizes.compared
        self.window = frames * height * width * 5 // 16
        """Tokens in a window: a few windows for all."""

    @cached_property
    def reference(self) -> DiT:
        return moved(moved(_make(), CPU, self.stand.dtype), CPU, torch.float32)

    @cached_property
    def rounded(self) -> DiT:
        """The reference with numbers in the device's dtype."""
        return moved(_make(), CPU, self.stand.dtype)

    @cached_property
    def dit(self) -> DiT:
        return moved(_make(), self.stand.device, self.stand.dtype)

    @cached_property
    def plain(self) -> Tensor:
        """The gradients of a LoRA on the device without any option, in one tensor, fp32 [n]."""
        return self.gradients(PLAIN)

    @cached_property
    def exact(self) -> Tensor:
        """The reference's output [1, C, F, H, W]."""
        return self.velocity(self.reference, self.example(9), CPU)

    @cached_property
    def exact_gradients(self) -> Tensor:
        """The gradients of the reference's LoRA, fp32 [n]."""
        with training(self.reference, CPU, PLAIN, random_up=True) as made:
            return made.gradients(self.example(9))

    @cached_property
    def bound(self) -> float | None:
        """Of an output."""
        spread = None
        if self.rounds:
            self.rounded.attention = ROUNDED_ATTENTION
            with RoundedProducts():
                spread = self.stand.error(self.velocity(self.rounded, self.example(9), CPU), self.exact)
        return bound(self.stand.dtype, spread, transformer_roundings(BLOCKS))

    @cached_property
    def gradient_bound(self) -> float | None:
        """Of the gradients of a LoRA."""
        spread = None
        if self.rounds:
            with training(self.rounded, CPU, PLAIN, random_up=True) as made, RoundedProducts():
                self.rounded.attention = ROUNDED_ATTENTION
                spread = self.stand.error(made.gradients(self.example(9)), self.exact_gradients)
        return bound(self.stand.dtype, spread, transformer_roundings(BLOCKS, backward=True))

    @property
    def rounds(self) -> bool:
        """Whether the device's numbers are compared and have 16 bits."""
        return self.stand.has_data and self.stand.dtype in HALVES

    def example(self, *text_lengths: int, latent: Latent | None = None) -> Example:
        """A micro-batch whose numbers are exact in the device's dtype; latent frames, height, width."""
        latent, dtype = latent or self.stand.sizes.compared, self.stand.dtype
        return random_example(NUMBERS_DIT, latent, list(text_lengths)).rounded(dtype)

    def velocity(self, dit: DiT, example: Example, device: torch.device) -> Tensor:
        """The transformer's output [B, C, F, H, W] for a micro-batch."""
        example = example.to(device, dit.dtype)
        with torch.no_grad():
            return dit(example.model_input().to(dit.dtype), TIMESTEPS * example.sigma, example.condition)

    def gradients(
        self,
        options: Options,
        latent: Latent | None = None,
        *,
        compile_with: str | None = None,
        most_tokens: int = 0,
    ) -> Tensor:
        """The gradients of a LoRA on the device in one tensor, fp32 [n]."""
        dit = self.dit
        with training(dit, self.stand.device, options, random_up=True) as made:
            if most_tokens:
                dit.most_tokens = most_tokens
            if compile_with:
                dit.compile_blocks(backend=compile_with)
            try:
                return made.gradients(self.example(9, latent=latent))
            finally:
                dit.__dict__.pop("most_tokens", None)

    def with_lora(self, options: Options) -> Tensor:
        """The output [B, C, F, H, W] with a LoRA on the device, without gradients."""
        with training(self.dit, self.stand.device, options, random_up=True):
            return self.velocity(self.dit, self.example(9), self.stand.device)

    def forward(self) -> Measured:
        """Against fp32 on the CPU."""
        found = self.velocity(self.dit, self.example(9), self.stand.device)
        return Measured(error=self.stand.error(found, self.exact), bound=self.bound)

    def backward(self) -> Measured:
        """Against fp32 on the CPU."""
        return Measured(error=self.stand.error(self.plain, self.exact_gradients), bound=self.gradient_bound)

    def fused(self) -> Measured:
        """With `fused_kernels`, and without: gradients, and the output without them, which other kernels compute."""
        if self.stand.device.type == "cpu":
            raise Skipped("only on GPUs")
        if self.stand.on_cuda and not triton_works(self.stand.device):
            raise Skipped("Triton makes no kernels here: it, or the C compiler that it calls, is not installed")
        unfused: Options = {**PLAIN, "fused_kernels": False}
        gradients = self.stand.error(self.plain, self.gradients(unfused))
        outputs = self.stand.error(self.with_lora(PLAIN), self.with_lora(unfused))
        return judged([(gradients, doubled(self.gradient_bound)), (outputs, doubled(self.bound))])

    def two_runs(self) -> Measured:
        """LoRA weights and numbers of two trainings of two steps; the note is on the attention of a training."""
        example = self.example(9, 5)

        def run(options: Options) -> Tensor:
            with training(self.dit, self.stand.device, options) as made:
                return torch.cat([made.run(example), made.run(example), made.weights()])

        def difference(options: Options) -> float | None:
            return self.stand.difference(run(options), run(options))

        with repeatable():
            error = difference(REPEATABLE)
        note = ""
        if self.stand.on_cuda and (usual := difference({})):
            note = f"with the attention of a training they differ by {usual:.1e}: its backward pass adds in any order"
        return Measured(error=error, bound=0.0, note=note)

    def equal(self, options: Options, latent: Latent) -> Measured:
        """Gradients with and without options that change no number."""
        with repeatable():
            plain, found = (self.gradients({**each, **REPEATABLE}, latent) for each in (PLAIN, options))
        return Measured(error=self.stand.difference(found, plain), bound=0.0)

    def split(self) -> Measured:
        """Attention by groups of heads."""
        return self._close(self.gradients({**PLAIN, "split_attn": True}))

    def checkpointed_windows(self) -> Measured:
        """A window of tokens at a time in the backward pass."""
        return self._close(self.gradients({}, most_tokens=self.window))

    def compiled(self) -> Measured:
        """Compiled blocks; on a processor they are only traced, which needs no compiler."""
        if not self.stand.has_data:
            raise Skipped("the device has no data")
        return self._close(self.gradients(PLAIN, compile_with="inductor" if self.stand.on_cuda else "eager"))

    def windows(self) -> Measured:
        """Without gradients: all tokens at once, and a window of them at a time."""
        example = self.example(9)
        whole = self.velocity(self.dit, example, self.stand.device)
        self.dit.most_tokens = self.window
        try:
            found = self.velocity(self.dit, example, self.stand.device)
        finally:
            del self.dit.most_tokens
        return Measured(error=self.stand.error(found, whole), bound=doubled(self.bound))

    def unequal_lengths(self) -> Measured:
        """A batch of three, and each sample alone."""
        lengths = (9, 3, 6)
        example = self.example(*lengths).to(self.stand.device, self.stand.dtype)
        together = self.velocity(self.dit, example, self.stand.device)
        alone = [self.velocity(self.dit, _sample(example, i), self.stand.device) for i in range(len(lengths))]
        return Measured(error=self.stand.error(together, torch.cat(alone)), bound=doubled(self.bound))

    def guidance_batch(self) -> Measured:
        """Both branches of a sampling step as one batch, and one after the other."""
        device, dtype = self.stand.device, self.stand.dtype
        x = self.example(9).to(device, dtype).model_input().to(dtype)
        time = torch.full((1,), 700.0, device=device)
        conditions = [random_condition(NUMBERS_DIT, [length]).to(device, dtype) for length in (9, 4)]
        with torch.no_grad():
            alone = torch.cat([self.dit(x, time, each) for each in conditions])
            together = self.dit(x.repeat(2, 1, 1, 1, 1), time.repeat(2), stack_conditions(conditions))
        return Measured(error=self.stand.error(together, alone), bound=doubled(self.bound))

    def graphs(self) -> Measured:
        """A sample with guidance whose passes are recorded in the second step, and one without."""
        device, dtype = self.stand.device, self.stand.dtype
        noise = self.example(9).noise.to(device)
        cond, uncond = (random_condition(NUMBERS_DIT, [length]).to(device, dtype) for length in (9, 4))

        def run(model: DiT | Replayed) -> Tensor:
            return denoise(model, noise, cond, uncond, LEVELS, 6.0)

        found, plain = run(Replayed(self.dit, recorder_for(device))), run(self.dit)
        note = "" if self.stand.on_cuda else "no graphs here: only the copies of the inputs"
        return Measured(error=self.stand.difference(found, plain), bound=0.0, note=note)

    def _close(self, found: Tensor) -> Measured:
        return Measured(error=self.stand.error(found, self.plain), bound=doubled(self.gradient_bound))


def _make() -> DiT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DiT(NUMBERS_DIT).requires_grad_(False).eval()


def _sample(example: Example, index: int) -> Example:
    """One sample of a batch, without padding."""
    one, cond = slice(index, index + 1), example.condition
    length = cond.text_lengths[index]
    return Example(
        x0=example.x0[one],
        noise=example.noise[one],
        sigma=example.sigma[one],
        weight=example.weight[one],
        first_frame=example.first_frame[one],
        condition=Condition(cond.text[one, :length], [length], cond.glyphs[one], [0]),
    )
