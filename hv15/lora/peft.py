"""PEFT's settings in a file's metadata, where diffusers and the official code store alpha."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hv15.errors import UserError
from hv15.lora.kinds import MAGNITUDE, group_parts
from hv15.lora.names import PEFT_PREFIX
from hv15.patterns import PatternError, Searches
from hv15.records.json_values import RecordError, parse_object

if TYPE_CHECKING:
    from torch import Tensor

    from hv15.lora.adapters import Hadamard, Kronecker, LowRank

ADAPTER_METADATA = "lora_adapter_metadata"
"""The key of the file's metadata that holds the settings as JSON."""
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
"""The two files of an adapter that PEFT itself saves, in a folder of their own."""
MOST_PATTERNS = 1000
"""Limit on the patterns in one file. One for each module of a model is usual if ranks differ."""


class PeftSettings(dict[str, object]):
    """PEFT's settings in the metadata of one file, and the time that its patterns may take."""

    def __init__(self, content: Mapping[str, object]) -> None:
        super().__init__(content)
        self.searches = Searches()


def with_alphas(state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """Add the strengths in the metadata to the tensors, so that the metadata is no longer needed.

    LoRA and LoHa get `.alpha` tensors (), unless they have them. A LoKr's strength goes into its w1, because PEFT
    multiplies by it also where LyCORIS has no alpha.

    Raises:
        UserError: the metadata is not what PEFT writes, or is of a DoRA whose magnitudes are not in the file.
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
    """The strength alpha / rank, by which the product of a module's factors is multiplied."""

    alpha: float
    rank: float


def strength_of(settings: PeftSettings, module: str, shapes: Mapping[str, tuple[int, ...]]) -> Strength | None:
    """Return a module's strength from the metadata; None if it is not there, or an `.alpha` tensor holds it.

    Args:
        settings: see `read_settings`.
        module: its name in the file.
        shapes: the shapes of its tensors, by part.

    Raises:
        UserError: the settings are not what PEFT writes.
    """
    name = module.removeprefix("transformer.").removeprefix(PEFT_PREFIX)
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


def lora_settings(modules: Mapping[str, LowRank], prefix: str, *, dora: bool = False) -> str:
    """Return the settings, as JSON, of a file whose alphas are folded into up (alpha = rank).

    Without them some versions of diffusers apply modules of a different rank with a wrong strength.

    Args:
        modules: LoRAs by module name.
        prefix: of the names in the file: "transformer." or "".
        dora: whether every module has a magnitude too.
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
            "use_dora": dora,
        },
        prefix,
    )


def loha_settings(modules: Mapping[str, Hadamard]) -> str:
    """Return the settings, as JSON, of a file of LoHa whose w1_a include the strength (alpha = rank)."""
    ranks = {name: adapter.rank for name, adapter in modules.items()}
    usual, unusual = _patterns(ranks)
    return _written(
        {
            "peft_type": "LOHA",
            "r": usual,
            "alpha": usual,
            "rank_pattern": unusual,
            "alpha_pattern": unusual,
            "target_modules": sorted(ranks),
        },
        "",
    )


def adapter_config(settings: str) -> str:
    """Return the text of the config file of an adapter, from its settings as JSON."""
    return json.dumps({"peft_type": "LORA", "task_type": None, **parse_object(settings)}, indent=2, sort_keys=True)


def with_config_file(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a file's metadata, with the settings from PEFT's config file beside it if they are not in there.

    Raises:
        UserError: the config file cannot be read.
    """
    config = path.parent / CONFIG_FILE
    if path.name != WEIGHTS_FILE or metadata.get(ADAPTER_METADATA) or not config.is_file():
        return dict(metadata)
    try:
        return {**metadata, ADAPTER_METADATA: config.read_text(encoding="utf-8")}
    except (OSError, ValueError) as error:
        raise UserError.at(config, f"cannot be read: {error}", hint="copy it again") from error


def lokr_settings(modules: Mapping[str, Kronecker], factor: int, prefix: str) -> str:
    """Return the settings, as JSON, of a file of LoKr whose w1 is one matrix that includes the strength (alpha = rank).

    Args:
        modules: LoKr by module name.
        factor: PEFT's `decompose_factor`.
        prefix: of the names in the file: "transformer." or "".
    """
    # PEFT builds w2 as one matrix if the rank is at least half its larger side.
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


def read_settings(metadata: Mapping[str, str]) -> PeftSettings:
    """Return PEFT's settings from a file's metadata, {} if there are none.

    Raises:
        UserError: they are not a JSON object.
    """
    text = metadata.get(ADAPTER_METADATA)
    if not text:
        return PeftSettings({})
    try:
        return PeftSettings({key.removeprefix("transformer."): value for key, value in parse_object(text).items()})
    except RecordError as error:
        raise UserError(
            f"LoRA: its metadata {ADAPTER_METADATA} cannot be read: {error}", hint="export it again"
        ) from error


def _setting(settings: PeftSettings, name: str, pattern_name: str, module: str) -> float | None:
    """Return a number for a module. As in PEFT, patterns are regular expressions for the end of a module's name."""
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
    """Return the rank of a LoRA or LoHa; None for other kinds and for tensors that are not matrices."""
    for part in ("lora_down.weight", "hada_w1_b"):
        if len(shapes.get(part, ())) == 2:
            return shapes[part][0]
    return None


def _patterns(ranks: Mapping[str, int]) -> tuple[int, dict[str, int]]:
    """Return the most frequent rank, and the other ranks by a pattern that matches only their module."""
    usual = Counter(ranks.values()).most_common(1)[0][0]
    return usual, {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != usual}


def _written(settings: Mapping[str, object], prefix: str) -> str:
    return json.dumps({prefix + key: value for key, value in settings.items()}, sort_keys=True)
