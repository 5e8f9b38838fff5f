"""What a checkpoint is, from its headers alone: layout, number format, quantisation, mean flow, which one of the list.

Needs no torch and reads no weight, so that planning, checks, the training and the sampler can all ask the same.
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
"""fp8: a plain cast. fp8_scaled: with scales. nf4, fp4, int8: as bitsandbytes writes them. other: not known here."""

QUANTISATIONS: dict[Quantisation, str] = {
    "none": "not quantised",
    "fp8": "float8 without scales",
    "fp8_scaled": "float8 with scales",
    "nf4": "nf4 of bitsandbytes",
    "fp4": "fp4 of bitsandbytes",
    "int8": "int8 of bitsandbytes",
    "other": "quantised in a way that is not known here",
}

_FP8 = {"F8_E4M3", "F8_E5M2"}
_SCALES = (".scale_weight", ".weight_scale", ".weight_scale_2", ".scale_input", ".input_scale", ".pre_quant_scale")
_TABLES = (
    *(".comfy_quant", ".SCB", ".weight_format", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"),
    *(".qzeros", ".wscales"),
)


@dataclass(frozen=True)
class CheckpointFacts:
    """What the headers, config.json and the path of a checkpoint tell."""

    path: Path
    model: str
    """What it is, in words: "the HunyuanVideo 1.5 transformer", "a VAE", "an unknown model", ..."""
    layout: PublishedLayout | None
    """The transformer's naming of tensors; None for any other model."""
    dtype: str
    """Number format of most of its bytes, as torch calls it: bfloat16, float8_e4m3fn, ..."""
    quantisation: Quantisation
    meanflow: bool
    """Has `time_r_in`: it is also told where a step ends, as the published step-distilled checkpoint is."""
    super_resolution: bool
    """Takes the further channels of a low-resolution video: another model, which is not used here."""
    parameters: int
    """Weights, the scales and tables of a quantisation not counted, and nothing but the transformer if it is one."""
    size: int
    """Bytes of its files."""
    files: int
    variant: FoundVariant | None
    """Which t2v or i2v checkpoint it is taken for; None if nothing tells and no task says what to guess."""
    detected: FoundVariant | None
    """The same without `models.variant` and guesses."""

    @property
    def is_transformer(self) -> bool:
        return self.layout is not None

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


def describe(path: Path | str, *, given: FoundVariant | None = None, task: Task | None = None) -> CheckpointFacts:
    """Read the headers of a checkpoint, a file or a folder of shards, and say what it is; any model, not only ours.

    Args:
        given: what a setting says that it is, which counts more than what the path tells.
        task: decides the guess where nothing tells which transformer it is; None guesses nothing.

    Raises:
        UserError: missing, damaged, a pickle, not safetensors, or a folder without one clear checkpoint.
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
        variant=choose_variant(detected, given, task, meanflow=meanflow) if ours else None,
        detected=detected,
    )


def choose_variant(
    detected: FoundVariant | None, given: FoundVariant | None, task: Task | None, *, meanflow: bool
) -> FoundVariant | None:
    """Which checkpoint a file is taken for: what is given, else what config.json or the path tells, else by
    `time_r_in`, which only one published checkpoint has; else the 480p base of the task, which is a guess."""
    if given is not None or detected is not None:
        return given or detected
    if meanflow:
        return FoundVariant("480p_i2v_step_distilled", "time_r_in")
    return FoundVariant(f"480p_{task}", "default") if task is not None else None


def _source(layout: PublishedLayout, official_key: str) -> str:
    return reading_recipes(layout, [official_key])[official_key].sources[0]


def _quantisation(checkpoint: Checkpoint, keys: Iterable[str]) -> Quantisation:
    """How weights are quantised, by the names that publishers give to scales, and by their number formats."""
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
    """Packed weights of GPTQ, AWQ and SVDQuant."""
    return any(key.endswith((".qweight", ".wscales", ".qzeros")) for key in names)


def _is_marker(key: str) -> bool:
    return key.rpartition(".")[2] == "scaled_fp8"


def _parameters(checkpoint: Checkpoint, keys: Iterable[str]) -> int:
    """Weights and biases; two of them in a byte where bitsandbytes packs 4-bit numbers."""
    count = 0
    for key in keys:
        if not (key.endswith((*_SCALES, *_TABLES)) or _is_marker(key) or ".quant_state." in key):
            packed = f"{key}.absmax" in checkpoint
            count += prod(checkpoint.shape(key)) * (2 if packed else 1)
    return count


def _bytes(checkpoint: Checkpoint, key: str) -> int:
    return prod(checkpoint.shape(key)) * BITS[checkpoint.dtype_name(key)] // 8


def _super_resolution(checkpoint: Checkpoint, layout: PublishedLayout, prefix: str) -> bool:
    """More input channels than noisy latents, condition latents and mask: those of the low-resolution video."""
    first, last = (prefix + _source(layout, key) for key in ("img_in.proj.weight", "final_layer.linear.weight"))
    if first not in checkpoint or last not in checkpoint:
        return False
    channels, latents = checkpoint.shape(first)[1:2], checkpoint.shape(last)[:1]
    return bool(channels and latents) and channels[0] > 2 * latents[0] + 1
