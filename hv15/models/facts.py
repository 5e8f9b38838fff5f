"""Facts about a checkpoint from its headers alone: layout, number format, quantisation, mean flow, published variant.

Needs no torch and reads no weights, so planning, checks, training and sampling can all use it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

from hv15.choices import PublishedLayout, Task
from hv15.models.layouts import detect_dit_layout, looks_like, reading_recipes
from hv15.models.variants import FoundVariant, detect_variant
from hv15.models.weights.checkpoint import Checkpoint, open_checkpoint
from hv15.models.weights.header import BITS, TORCH_NAMES

Quantisation = Literal["none", "fp8", "fp8_scaled", "nf4", "fp4", "int8", "other"]
"""fp8: a plain cast. fp8_scaled: with scales. nf4, fp4, int8: as bitsandbytes writes them. other: an unknown kind."""

QUANTISATIONS: dict[Quantisation, str] = {
    "none": "not quantised",
    "fp8": "float8 without scales",
    "fp8_scaled": "float8 with scales",
    "nf4": "nf4 of bitsandbytes",
    "fp4": "fp4 of bitsandbytes",
    "int8": "int8 of bitsandbytes",
    "other": "quantised in an unknown way",
}

_FP8 = {"F8_E4M3", "F8_E5M2"}
_SCALES = (".scale_weight", ".weight_scale", ".weight_scale_2", ".scale_input", ".input_scale", ".pre_quant_scale")
_TABLES = (
    *(".comfy_quant", ".SCB", ".weight_format", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"),
    *(".qzeros", ".wscales"),
)


@dataclass(frozen=True)
class CheckpointFacts:
    """What is known of a checkpoint from its headers, config.json and path."""

    path: Path
    model: str
    """What it is, in words: "the HunyuanVideo 1.5 transformer", "a VAE", "an unknown model", ..."""
    layout: PublishedLayout | None
    """How the transformer's tensors are named; None for any other model."""
    dtype: str
    """Number format of most of its bytes, as torch calls it: bfloat16, float8_e4m3fn, ..."""
    quantisation: Quantisation
    meanflow: bool
    """Has `time_r_in`, the input for the end of a step, as the published step-distilled checkpoint does."""
    super_resolution: bool
    """Has more input channels, for a low-resolution video: it enlarges what a t2v or i2v transformer made."""
    parameters: int
    """Number of weights, without a quantisation's scales and tables; of the transformer only, if the file holds one."""
    size: int
    """Bytes of its files."""
    files: int
    variant: FoundVariant | None
    """The t2v or i2v checkpoint that it is taken to be; None if that is unknown and there is no task to guess from."""
    detected: FoundVariant | None
    """The variant that config.json or the path names, without `models.variant` and guesses."""

    @property
    def in_fp8(self) -> bool:
        return self.quantisation in ("fp8", "fp8_scaled")

    def __str__(self) -> str:
        """One line: layout, number format, size."""
        what = [f"{self.layout} layout"] if self.layout else [self.model]
        what += ["super-resolution"] if self.super_resolution else []
        what += [self.dtype if self.quantisation == "none" else f"{self.dtype} ({QUANTISATIONS[self.quantisation]})"]
        what += ["mean flow"] if self.meanflow else []
        return ", ".join([*what, f"{self.parameters:,} parameters", f"{self.size / 2**30:.2f} GiB"])


def describe(path: Path | str, *, configured: FoundVariant | None = None, task: Task | None = None) -> CheckpointFacts:
    """Read the headers of a checkpoint (a file or a folder of shards) and say what it is; works for any model.

    Args:
        configured: the variant that `models.variant` sets; it takes precedence over the path.
        task: the task to guess a variant for, if the file does not tell which transformer it is; None: no guess.

    Raises:
        UserError: the file is missing, damaged, a pickle or not safetensors, or a folder has no single checkpoint.
    """
    checkpoint = open_checkpoint(Path(path))
    found = detect_dit_layout(checkpoint.keys())
    layout, prefix = found if found is not None else (None, "")
    keys = [key for key in checkpoint if key.startswith(prefix)]
    quantisation = _quantisation(checkpoint, keys)
    sizes: Counter[str] = Counter()
    for key in keys:
        sizes[checkpoint.dtype_name(key)] += _bytes(checkpoint, key)
    dtype = sizes.most_common(1)[0][0] if sizes else ""
    meanflow = layout is not None and prefix + _source(layout, "time_r_in.mlp.0.weight") in checkpoint
    super_resolution = layout is not None and _super_resolution(checkpoint, layout, prefix)
    ours = layout is not None and not super_resolution
    detected = detect_variant(path) if ours else None
    return CheckpointFacts(
        path=Path(path),
        model="the HunyuanVideo 1.5 transformer" if layout else looks_like(keys),
        layout=layout,
        dtype=TORCH_NAMES.get(dtype, dtype),
        quantisation=quantisation,
        meanflow=meanflow,
        super_resolution=super_resolution,
        parameters=_parameters(checkpoint, keys),
        size=sum(file.stat().st_size for file in checkpoint.files),
        files=len(checkpoint.files),
        variant=choose_variant(detected, configured, task, meanflow=meanflow) if ours else None,
        detected=detected,
    )


def choose_variant(
    detected: FoundVariant | None, configured: FoundVariant | None, task: Task | None, *, meanflow: bool
) -> FoundVariant | None:
    """Return the checkpoint that a file is taken to be.

    That is the configured variant, else the one that config.json or the path names, else the one published checkpoint
    that has `time_r_in` if the file has it, else, as a guess, the 480p base of the task.
    """
    if configured is not None or detected is not None:
        return configured or detected
    if meanflow:
        return FoundVariant("480p_i2v_step_distilled", "time_r_in")
    return FoundVariant(f"480p_{task}", "default") if task is not None else None


def _source(layout: PublishedLayout, official_key: str) -> str:
    return reading_recipes(layout, [official_key])[official_key].sources[0]


def _quantisation(checkpoint: Checkpoint, keys: Iterable[str]) -> Quantisation:
    """Tell how weights are quantised from their number formats and from the names that publishers give to scales."""
    names = list(keys)
    if any(key.endswith(".quant_state.bitsandbytes__nf4") for key in names):
        return "nf4"
    if any(key.endswith(".quant_state.bitsandbytes__fp4") for key in names):
        return "fp4"
    if any(key.endswith(".SCB") for key in names):
        return "int8"
    dtypes = {checkpoint.dtype_name(key) for key in names if key.endswith(".weight")}
    scaled = any(key.endswith(_SCALES) or _is_marker(key) for key in names)
    if dtypes & _FP8 and not dtypes & {"U8", "I8", "F4"}:
        return "fp8_scaled" if scaled else "fp8"
    return "other" if scaled or any(BITS.get(dtype, 16) < 16 for dtype in dtypes) or _foreign(names) else "none"


def _foreign(names: Iterable[str]) -> bool:
    """Whether there are packed weights of GPTQ, AWQ or SVDQuant."""
    return any(key.endswith((".qweight", ".wscales", ".qzeros")) for key in names)


def _is_marker(key: str) -> bool:
    return key.rpartition(".")[2] == "scaled_fp8"


def _parameters(checkpoint: Checkpoint, keys: Iterable[str]) -> int:
    """Count weights and biases; where bitsandbytes packs 4-bit numbers, a byte holds two."""
    count = 0
    for key in keys:
        if not (key.endswith((*_SCALES, *_TABLES)) or _is_marker(key) or ".quant_state." in key):
            packed = f"{key}.absmax" in checkpoint
            count += prod(checkpoint.shape(key)) * (2 if packed else 1)
    return count


def _bytes(checkpoint: Checkpoint, key: str) -> int:
    return prod(checkpoint.shape(key)) * BITS[checkpoint.dtype_name(key)] // 8


def _super_resolution(checkpoint: Checkpoint, layout: PublishedLayout, prefix: str) -> bool:
    """Whether there are more input channels than noisy latents, condition latents and mask need."""
    first, last = (prefix + _source(layout, key) for key in ("img_in.proj.weight", "final_layer.linear.weight"))
    if first not in checkpoint or last not in checkpoint:
        return False
    channels, latents = checkpoint.shape(first)[1:2], checkpoint.shape(last)[:1]
    return bool(channels and latents) and channels[0] > 2 * latents[0] + 1
