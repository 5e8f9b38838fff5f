"""The tensors of a LoRA file by module, with the spelling that each program looks for, and their meaning."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hv15.errors import UserError
from hv15.lora.kinds import group_parts, has_base_norms
from hv15.lora.outline import read_scalar
from hv15.lora.peft import PeftSettings, read_settings, strength_of
from hv15.models.weights.header import read_header

_PART = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_(?:down|up|mid)(?:\.(?:weight|bias))?|lora_[AB](?:\.[A-Za-z]\w*)?\.(?:weight|bias)"
    r"|lora_[AB]|lora(?:_linear_layer)?\.(?:down|up)\.weight|alpha|dora_scale"
    r"|lora_magnitude_vector(?:\.[A-Za-z]\w*)?(?:\.weight)?"
    r"|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t[12])|[ab][12]\.weight|oft_\w+(?:\.\w+)*|rescale"
    r"|diff|diff_b|w_norm|b_norm|set_weight|reshape_weight)"
)

_PRODUCTS = (
    ("lora_up.weight", "lora_down.weight"),
    ("hada_w1_a", "hada_w1_b"),
    ("hada_w2_a", "hada_w2_b"),
    ("lokr_w1_a", "lokr_w1_b"),
    ("lokr_w2_a", "lokr_w2_b"),
)
"""The parts that each program multiplies, as kohya and LyCORIS name them."""


@dataclass(frozen=True)
class FileModule:
    """The tensors of one module of a file, by part in the spelling of the file."""

    name: str
    keys: Mapping[str, str]
    """Names of the tensors, by part ("lora_A.weight")."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shapes, by part as kohya and LyCORIS name it ("lora_down.weight"); empty if hv15 does not know the kind."""
    alpha: float | None
    """From its `.alpha` tensor."""
    told: float
    """Its strength from PEFT's settings; 1 if there are none."""

    def has(self, start: str) -> bool:
        """Whether a part's name begins with these letters."""
        return any(part.startswith(start) for part in self.keys)

    @property
    def meant(self) -> float:
        """The strength that is meant: alpha / rank, from the tensor or from PEFT's settings; 1 if neither says one."""
        if self.alpha is None:
            return self.told
        return self.alpha / self.rank if self.rank else 1.0

    @property
    def has_alpha_elsewhere(self) -> bool:
        """Whether only PEFT's settings tell its strength, and it is not 1."""
        return self.alpha is None and not math.isclose(self.told, 1.0, rel_tol=1e-6)

    @property
    def misfit(self) -> str:
        """Which two of its matrices cannot be multiplied, in words; "" if all can."""
        for left, right in _PRODUCTS:
            one, other = self.shapes.get(left, ()), self.shapes.get(right, ())
            if len(one) == len(other) == 2 and one[1] != other[0]:
                return f"{left} has rank {one[1]}, and {right} {other[0]}"
        return ""

    @property
    def rank(self) -> int | None:
        """The rank of a LoRA, a LoHa or a LoKr with a factored side."""
        for part, axis in (("lora_down.weight", 0), ("hada_w1_b", 0), ("lokr_w2_b", 0), ("lokr_w1_b", 0)):
            if len(self.shapes.get(part, ())) == 2:
                return self.shapes[part][axis]
        return None


@dataclass(frozen=True)
class ForeignFile:
    """A LoRA file of any program, whether hv15 can use it or not."""

    modules: Mapping[str, FileModule]
    others: tuple[str, ...]
    """Names of tensors that are of no known kind."""
    metadata: Mapping[str, str]

    @property
    def base_norms(self) -> bool:
        """Whether its DoRA magnitudes are relative to the norms of the base weights."""
        return has_base_norms(self.metadata)

    @cached_property
    def settings(self) -> PeftSettings:
        """PEFT's settings in the metadata, with or without `transformer.` before their names; {} if there are none.

        Raises:
            UserError: they cannot be read.
        """
        return read_settings(self.metadata)

    def tensors(self) -> Iterator[str]:
        """Yield the names of all tensors."""
        for module in self.modules.values():
            yield from module.keys.values()
        yield from self.others


def read_file(path: Path) -> ForeignFile:
    """Read a file's header and alphas.

    Raises:
        UserError: it is missing, damaged, has no tensors, or two keys mean the same tensor.
    """
    if path.is_dir():
        raise UserError.at(path, "a folder; expected a LoRA file (.safetensors)", hint="name the file in it")
    header = read_header(path)
    if not header.entries:
        raise UserError.at(path, "a file without tensors", hint="check that its export finished")
    grouped: dict[str, dict[str, str]] = {}
    others = []
    for key in header.entries:
        if match := _PART.fullmatch(key):
            grouped.setdefault(match["module"], {})[match["part"]] = key
        else:
            others.append(key)
    try:
        usual = group_parts(header.entries)[0]
        settings = read_settings(header.metadata)
        modules = {}
        for name, keys in grouped.items():
            shapes = {part: header.entries[key].shape for part, key in usual.get(name, {}).items()}
            strength = strength_of(settings, name, shapes)
            alpha = read_scalar(header, keys["alpha"]) if "alpha" in keys else None
            told = 1.0 if strength is None else strength.alpha / strength.rank
            modules[name] = FileModule(name, keys, shapes, alpha, told)
    except UserError as error:
        raise UserError.at(path, error.message, hint=error.hint) from error
    return ForeignFile(modules, tuple(others), header.metadata)
