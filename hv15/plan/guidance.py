"""What one batch of both branches of guidance needs, for `sample.guidance_batch: by_memory`. Loads torch when asked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hv15.config import Settings
from hv15.sample.guidance_batch import Inputs, Need
from hv15.sample.prompts import SampleSpec

if TYPE_CHECKING:
    from hv15.plan.transformer import Known


def batch_need(settings: Settings) -> Need:
    """Return what plans a sampling step with both branches as one batch, on the device of `runtime.device`.

    As in `hv15 plan`, the step is run without data, which takes seconds, once for each size. All but the transformer's
    weights counts, with the same allowance for the allocator.
    """
    known: Known = {}

    def need(spec: SampleSpec, inputs: Inputs) -> int:
        from hv15.memory import WEIGHTS
        from hv15.plan.devices import detect_device
        from hv15.plan.known_devices import find_rates
        from hv15.plan.metered_steps import LORA, PassSize
        from hv15.plan.transformer import denoising
        from hv15.precision import pick_device, pick_dtype

        device = detect_device(settings.runtime.device)
        device = replace(device, rates=find_rates(device)[0])
        sample = settings.sample.model_copy(update={"quantize": spec.quantize, "compile": False})
        cost = denoising(
            settings.model_copy(update={"sample": sample}),
            inputs.config,
            pick_dtype(spec.dtype, pick_device(settings.runtime.device)),
            PassSize(1, spec.latent_size, inputs.tokens, i2v=spec.task == "i2v"),
            guided=True,
            batch_cfg=True,
            with_lora=inputs.lora_bytes > 0,
            gpu=device.gpu,
            known=known,
        )
        weights = cost.parts.get(WEIGHTS, 0)
        loras = max(inputs.lora_bytes - cost.parts.get(LORA, 0), 0)  # planned is the LoRA that `train:` would make
        return cost.peak - weights + loras + (device.fragments(cost.peak, weights) if device.gpu else 0)

    return need
