"""The settings that PEFT leaves in a file's metadata: where diffusers and the official code keep alpha."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from hv15.errors import UserError
from hv15.lora.kinds import MAGNITUDE, group_parts
from hv15.patterns import PatternError, Searches
from hv15.records.json_values import RecordError, parse_object

if TYPE_CHECKING:
    from torch import Tensor

    from hv15.lora.adapters import Kronecker, LowRank

ADAPTER_METADATA = "lora_adapter_metadata"
"""Key of the file metadata under which the settings stand as JSON."""
MOST_PATTERNS = 1000
"""One for each module of a model is usual where ranks differ."""


class Settings(dict[str, object]):
    """PEFT's settings in the metadata of one file, and the time that its patterns may take."""

    def __init__(self, content: Mapping[str, object]) -> None:
        super().__init__(content)
        self.searches = Searches()


def with_alphas(state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """Add the strengths of the metadata to the tensors, so that these alone say everything.

    LoRA and LoHa get `.alpha` tensors; those that are there already win. A LoKr's strength goes into its w1, because
    PEFT multiplies with it also where LyCORIS has no alpha.

    Raises:
        UserError: the metadata is not what PEFT writes, or tells of a DoRA whose magnitudes are not in the file.
    """
    from hv15.lora.adapters import alpha_tensor, cast_up, scaled

    result = dict(state_dict)
    settings = read_settings(metadata)
    modules = group_parts(state_dict)[0]
    if settings.get("use_dora") and not any(MAGNITUDE in keys for keys in modules.values()):
        raise UserError("LoRA: a DoRA without its lora_magnitude_vector tensors", hint="export it again")
    for module, keys in modules.items() if settings else ():
        strength = strength_of(settings, module, {part: tuple(state_dict[key].shape) for part, key in keys.items()})
        w1 = keys.get("lokr_w1") or keys.get("lokr_w1_a")
        if strength is not None and w1 is not None:
            result[w1] = scaled(cast_up(state_dict[w1]), strength.alpha / strength.rank)
        elif strength is not None:
            result[f"{module}.alpha"] = alpha_tensor(strength.alpha)
    return result


class Strength(NamedTuple):
    """What a module's product of factors is multiplied with: alpha / rank."""

    alpha: float
    rank: float


def strength_of(settings: Settings, module: str, shapes: Mapping[str, tuple[int, ...]]) -> Strength | None:
    """A module's strength by the metadata; None: it says nothing, or an `.alpha` tensor says it.

    Args:
        settings: see `read_settings`.
        module: its name in the file.
        shapes: of its tensors, by part.

    Raises:
        UserError: the settings are not what PEFT writes.
    """
    name = module.removeprefix("transformer.")
    alpha = _setting(settings, "lora_alpha" if "lora_alpha" in settings else "alpha", "alpha_pattern", name)
    if any(part.startswith("lokr_") for part in shapes):
        rank = _setting(settings, "r", "rank_pattern", name)
    else:
        rank = _rank(shapes)
    if alpha is None or rank is None or "alpha" in shapes:
        return None
    if rank < 1:
        raise UserError(
            f"LoRA: its metadata {ADAPTER_METADATA} is not what PEFT writes: r of {name} is {rank:g}",
            hint="export it again",
        )
    return Strength(alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha, rank)


def lora_settings(modules: Mapping[str, LowRank], prefix: str) -> str:
    """The settings of a file whose alphas are folded into up (alpha = rank), as JSON.

    Without them some diffusers versions give modules of an unusual rank a wrong strength.

    Args:
        modules: LoRAs by module name.
        prefix: what stands before the names in the file: "transformer." or nothing.
    """
    ranks = {name: adapter.rank for name, adapter in modules.items()}
    usual, unusual = _patterns(ranks)
    return _written(
        {
            "r": usual,
            "lora_alpha": usual,
            "rank_pattern": unusual,
            "alpha_pattern": unusual,
            "target_modules": sorted(ranks),
            "lora_bias": False,
            "use_dora": False,
        },
        prefix,
    )


def lokr_settings(modules: Mapping[str, Kronecker], factor: int, prefix: str) -> str:
    """The settings of a file of LoKr whose w1 is one matrix and holds the strength (alpha = rank), as JSON.

    Args:
        modules: LoKr by module name.
        factor: PEFT's `decompose_factor`.
        prefix: what stands before the names in the file: "transformer." or nothing.
    """
    # PEFT builds w2 as one matrix where the rank is at least half its larger side.
    ranks = {
        name: max(each.w2[0].shape) if len(each.w2) == 1 else each.w2[0].shape[1] for name, each in modules.items()
    }
    usual, unusual = _patterns(ranks)
    return _written(
        {
            "peft_type": "LOKR",
            "r": usual,
            "alpha": usual,
            "rank_pattern": unusual,
            "alpha_pattern": unusual,
            "target_modules": sorted(ranks),
            "decompose_both": False,
            "decompose_factor": factor,
        },
        prefix,
    )


def read_settings(metadata: Mapping[str, str]) -> Settings:
    """PEFT's settings in a file's metadata, {} if there are none.

    Raises:
        UserError: they are not a JSON object.
    """
    text = metadata.get(ADAPTER_METADATA)
    if not text:
        return Settings({})
    try:
        return Settings({key.removeprefix("transformer."): value for key, value in parse_object(text).items()})
    except RecordError as error:
        raise UserError(
            f"LoRA: its metadata {ADAPTER_METADATA} is not a JSON object: {error}", hint="export it again"
        ) from error


def _setting(settings: Settings, name: str, pattern_name: str, module: str) -> float | None:
    """A number for a module. Patterns are regular expressions for the end of a module's name, as PEFT matches them."""
    patterns = settings.get(pattern_name) or {}
    try:
        if not isinstance(patterns, dict):
            raise TypeError(f"{pattern_name} is {patterns!r}")
        if len(patterns) > MOST_PATTERNS:
            raise TypeError(f"{pattern_name} has {len(patterns):,} patterns, at most {MOST_PATTERNS:,} are read")
        found = (
            value
            for pattern, value in patterns.items()
            if settings.searches.found(rf"\A(?:.*\.)?(?:{pattern})$", module)
        )
        value = next(found, settings.get(name))
        if not (value is None or isinstance(value, int | float)):
            raise TypeError(f"{name} of {module} is {value!r}")
        return None if value is None else float(value)
    except (TypeError, OverflowError, PatternError) as error:
        raise UserError(
            f"LoRA: its metadata {ADAPTER_METADATA} is not what PEFT writes: {error}", hint="export it again"
        ) from error


def _rank(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The rank of a LoRA or LoHa; None for other kinds and tensors that are no matrices."""
    for part in ("lora_down.weight", "hada_w1_b"):
        if len(shapes.get(part, ())) == 2:
            return shapes[part][0]
    return None


def _patterns(ranks: Mapping[str, int]) -> tuple[int, dict[str, int]]:
    """The most usual rank, and the others by a pattern that matches their module only."""
    usual = Counter(ranks.values()).most_common(1)[0][0]
    return usual, {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != usual}


def _written(settings: Mapping[str, object], prefix: str) -> str:
    return json.dumps({prefix + key: value for key, value in settings.items()}, sort_keys=True)
