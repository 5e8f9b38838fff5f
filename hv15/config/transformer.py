"""What `train:` and `sample:` share: how the transformer is held in memory and which kernels it runs on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hv15.choices import WeightFormat
from hv15.config.section import SPEED, Section

Quantize = Literal["none", WeightFormat]
AttentionMode = Literal["auto", "sdpa", "flash", "flash3", "xformers", "sage"]
MOST_SWAPPED = 51
"""Most blocks that can wait, of the published model's 54."""
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


class TransformerSettings(Section):
    """Memory and kernels of the transformer."""

    quantize: Quantize = "none"
    """Number format of the frozen weights of the blocks. `none`: as `dtype`. `fp8`: half of bfloat16's memory, scaled
    by blocks of 64 (musubi's fp8_base with fp8_scaled); a file in fp8 stays as it is. `fp8_fast`: the products are in
    fp8, too, on GPUs that have them (Ada, Hopper and later): faster, and half as much rounding again. `int8`: the size
    of fp8, by bitsandbytes. `nf4`: a quarter, by bitsandbytes, with the largest rounding. Norms, embeddings, first and
    last layers are never quantised."""

    blocks_to_swap: Annotated[int, Field(ge=0, le=MOST_SWAPPED)] = Field(0, json_schema_extra=SPEED)
    """How many of the 54 blocks wait in the machine's memory and visit the GPU one by one; each saves 0.28 GiB of GPU
    memory in bfloat16 and costs time. The results are the same. In training it needs `gradient_checkpointing`."""

    attn_mode: AttentionMode = Field("auto", json_schema_extra=SPEED)
    """Attention kernel. `auto`: the fastest installed one that the device can run. `sdpa`: torch's own. `flash`,
    `flash3`, `xformers`, `sage`: packages of their own; `sage` computes in 8 bits, so it is for sampling only."""

    split_attn: bool = Field(False, json_schema_extra=SPEED)
    """Attend sample by sample and head group by head group: less memory at a time, a little slower."""

    compile: bool = Field(False, json_schema_extra=SPEED)
    """Compile each block with torch.compile: minutes at the start, then faster steps."""

    compile_mode: CompileMode = Field("default", json_schema_extra=SPEED)
    """Mode of torch.compile: `default`, or one that searches longer for faster kernels. With `compile` only."""

    compile_dynamic: bool | None = Field(None, json_schema_extra=SPEED)
    """Whether compiled blocks take any size (true), each size is compiled for itself (false), or torch decides. True
    suits datasets with many buckets."""

    @model_validator(mode="before")
    @classmethod
    def _musubi_names(cls, data: object) -> object:
        """Read musubi-tuner's two switches for what is one setting here."""
        if not isinstance(data, dict) or not data.keys() & {"fp8_base", "fp8_scaled"}:
            return data
        rest = {name: value for name, value in data.items() if name not in ("fp8_base", "fp8_scaled")}
        base, scaled = data.get("fp8_base", False), data.get("fp8_scaled", False)
        if not isinstance(base, bool) or not isinstance(scaled, bool) or base != scaled:
            raise ValueError("fp8_base and fp8_scaled are true or false together (without scales fp8 is too coarse)")
        if base and rest.setdefault("quantize", "fp8") not in ("fp8", "fp8_fast"):
            raise ValueError(f"fp8_base contradicts quantize: {rest['quantize']}: keep one of them")
        return rest
