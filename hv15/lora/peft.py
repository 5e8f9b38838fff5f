"""The LoRA settings that PEFT leaves in a file's metadata: where diffusers and the official code keep alpha."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hv15.errors import UserError
from hv15.lora.adapters import Adapter, LowRank, alpha_tensor

ADAPTER_METADATA = "lora_adapter_metadata"
"""Key of the file metadata under which the settings stand as JSON."""
_DOWN = re.compile(r"(.+)\.lora_(?:A|down)(?:\.[A-Za-z]\w*)?\.weight")


def with_alphas(state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """Add the alphas of the metadata as `.alpha` tensors, so that the tensors alone say everything.

    `.alpha` tensors that are there already win.

    Raises:
        UserError: the metadata is not a JSON object, or says that the file is a DoRA.
    """
    settings = _settings(metadata)
    result = dict(state_dict)
    if settings.get("use_dora"):
        raise UserError(
            "LoRA: a DoRA: it scales rows by the norms of the base weight, which no other layout can hold",
            hint="merge it into the base model in the tool that made it, or train a LoRA without weight decomposition",
        )
    for key, tensor in state_dict.items():
        match = _DOWN.fullmatch(key)
        if match and settings.get("lora_alpha") is not None and tensor.ndim == 2:
            alpha = _alpha(settings, match[1].removeprefix("transformer."), rank=tensor.shape[0])
            result.setdefault(f"{match[1]}.alpha", alpha_tensor(alpha))
    return result


def peft_metadata(modules: Mapping[str, Adapter], prefix: str) -> str:
    """The settings of a file whose alphas are folded into up (alpha = rank), as JSON.

    Without them some diffusers versions give modules of an unusual rank a wrong strength.

    Args:
        modules: LoRAs by module name.
        prefix: what stands before the names in the file: "transformer." or nothing.
    """
    ranks = {name: adapter.rank for name, adapter in modules.items() if isinstance(adapter, LowRank)}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    unusual = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != usual}
    settings: dict[str, Any] = {
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": unusual,
        "alpha_pattern": unusual,
        "target_modules": sorted(ranks),
        "lora_bias": False,
        "use_dora": False,
    }
    return json.dumps({prefix + key: value for key, value in settings.items()}, sort_keys=True)


def _settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    text = metadata.get(ADAPTER_METADATA)
    if not text:
        return {}
    try:
        return {str(key).removeprefix("transformer."): value for key, value in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"LoRA: its metadata {ADAPTER_METADATA} is not a JSON object: {error}", hint="export it again"
        ) from error


def _alpha(settings: Mapping[str, Any], module: str, *, rank: int) -> float:
    """Alpha of a module. Patterns are regular expressions for the end of a module's name, as PEFT matches them."""
    patterns = settings.get("alpha_pattern") or {}
    found = (value for pattern, value in patterns.items() if re.match(rf"(?:.*\.)?(?:{pattern})$", module))
    alpha = float(next(found, settings["lora_alpha"]))
    return alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha  # rsLoRA: alpha / sqrt(rank)
