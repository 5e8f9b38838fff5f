"""The settings that `train:` and `sample:` share: the transformer's memory options and kernels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hv15.choices import WeightFormat
from hv15.config.section import SPEED, Section

Quantize = Literal["none", WeightFormat]
AttentionMode = Literal["auto", "sdpa", "flash", "flash3", "xformers", "sage"]
MOST_SWAPPED = 51
"""Most blocks that can be swapped, of the published model's 54."""
MOST_RANKS = 64
"""Most GPUs that could share a video, of any model; the published one has 16 heads."""
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


class TransformerSettings(Section):
    """Memory and kernels of the transformer."""

    quantize: Quantize = "none"
    """Number format of the blocks' frozen weights. `none`: as `dtype`. `fp8`: half of bfloat16's memory, scaled in
    blocks of 64 (musubi's fp8_base with fp8_scaled); a file in fp8 is not changed. `fp8_fast`: also computes products
    in fp8, on GPUs that support it (Ada, Hopper and later): faster, with about 1.5 times the rounding error. `int8`:
    the size of fp8, by bitsandbytes. `nf4`: a quarter of bfloat16's memory, by bitsandbytes, with the largest rounding
    error. Norms, embeddings, first and last layers are never quantised."""

    blocks_to_swap: Annotated[int, Field(ge=0, le=MOST_SWAPPED)] = Field(0, json_schema_extra=SPEED)
    """Number of the 54 blocks that are kept in CPU memory and copied to the GPU when they are needed. Each saves 0.28
    GiB of GPU memory in bfloat16 and costs time. The results are the same. Training needs `gradient_checkpointing`."""

    attn_mode: AttentionMode = Field("auto", json_schema_extra=SPEED)
    """Attention kernel. `auto`: the fastest installed one that the device supports. `sdpa`: torch's own. `flash`,
    `flash3`, `xformers`, `sage`: separate packages; `sage` computes in 8 bits, so it is only for sampling."""

    split_attn: bool = Field(False, json_schema_extra=SPEED)
    """Compute attention for one sample and one group of heads at a time: less memory, slightly slower."""

    context_parallel: Annotated[int, Field(ge=1, le=MOST_RANKS)] = Field(1, json_schema_extra=SPEED)
    """Number of GPUs that compute each video together, for videos that one GPU cannot hold: 2, 4, 8 or 16, which divide
    the model's 16 attention heads. Each holds the whole model and a share of the activations; the results are the same.
    hv15 starts the processes. Encoding and decoding are not divided."""

    fused_kernels: bool = Field(True, json_schema_extra=SPEED)
    """On GPUs, compute each of a block's norms, rotations, gates and GELU in one kernel, made by Triton, which is part
    of torch on Linux and calls a C compiler. Without these, or if false, torch's operations are used: slower, the same
    results up to rounding."""

    compile: bool = Field(False, json_schema_extra=SPEED)
    """Compile each block with torch.compile: takes minutes at the start, then steps are faster."""

    compile_mode: CompileMode = Field("default", json_schema_extra=SPEED)
    """Mode of torch.compile: `default`, or one that searches longer for faster kernels. Only with `compile`."""

    compile_dynamic: bool | None = Field(None, json_schema_extra=SPEED)
    """Whether compiled blocks support any size (true), are compiled for each size (false), or torch decides (not set).
    True suits datasets with many buckets."""

    compile_backend: str = Field("inductor", json_schema_extra=SPEED)
    """What torch.compile makes code with: `inductor`, or any other backend that torch knows on this machine, such as
    `cudagraphs`. Only with `compile`."""

    compile_fullgraph: bool = Field(False, json_schema_extra=SPEED)
    """With `compile`: stop where a part of a block cannot be compiled, instead of computing that part as it is."""

    @model_validator(mode="before")
    @classmethod
    def _musubi_names(cls, data: object) -> object:
        """Read musubi-tuner's fp8_base and fp8_scaled as `quantize`."""
        if not isinstance(data, dict) or not data.keys() & {"fp8_base", "fp8_scaled"}:
            return data
        rest = {name: value for name, value in data.items() if name not in ("fp8_base", "fp8_scaled")}
        base, scaled = data.get("fp8_base", False), data.get("fp8_scaled", False)
        if not isinstance(base, bool) or not isinstance(scaled, bool) or base != scaled:
            raise ValueError(
                "expected fp8_base and fp8_scaled both true or both false (fp8 without scales is too coarse)"
            )
        if base and rest.setdefault("quantize", "fp8") not in ("fp8", "fp8_fast"):
            raise ValueError(f"fp8_base contradicts quantize: {rest['quantize']}: keep one of them")
        return rest
