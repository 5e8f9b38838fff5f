"""What diffusers and the official code do with a LoRA file; both load it through PEFT.

Run with diffusers 0.42.1 and peft 0.21.2. `pipe.transformer.load_lora_adapter(FILE)` takes the tensors whose names
begin with `transformer.`, and does not read the file's metadata unless it is called with `use_safetensors=True` or
`weight_name=`. The official `generate.py --lora_path` takes all tensors and does read the metadata. Tensors that fit
no layer are left out, with a warning for some kinds only.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping

from hv15.errors import UserError
from hv15.lora.factorization import Matrix, common_factor
from hv15.lora.names import find_parts, generalise, layout_places
from hv15.lora.peft import ADAPTER_METADATA, PeftSettings, strength_of
from hv15.lora.programs.file import FileModule, ForeignFile
from hv15.lora.programs.verdicts import (
    LOADS,
    LOST_MAGNITUDES,
    NO_LAYER,
    Verdict,
    Verdicts,
    all_of,
    no_kind,
    other_name,
    times,
)
from hv15.records.json_values import parse_object

_LORA = ("lora_A.weight", "lora_B.weight")
_MAGNITUDE = re.compile(r"lora_magnitude_vector(?:\.weight)?")
_LOKR = re.compile(r"lokr_w[12](?:_[ab])?")


class PeftLoader(ABC):
    """A program that loads LoRAs through PEFT."""

    program: str
    prefix: str
    """Of the names of tensors and of settings in the metadata."""
    layers: frozenset[str]
    """Names of its model's linear layers, with # for the number of a block."""
    when_read: str = ""
    """When the settings in the metadata are read; "" if they always are."""
    otherwise: str = ""
    """When a strength in the metadata would be read after all."""

    def verdicts(self, file: ForeignFile) -> Verdicts:
        """Return what happens to each tensor."""
        outside = [key for key in file.tensors() if not key.startswith(self.prefix)]
        found = all_of(outside, "dropped", f"{self.program} takes names that begin with {self.prefix}")
        inside = {name: module for name, module in file.modules.items() if name.startswith(self.prefix)}
        found |= all_of((key for key in file.others if key not in found), "dropped", no_kind("PEFT"))
        if not inside:
            return found
        keys = [key for module in inside.values() for key in module.keys.values()]
        if (why := self._why_stops(file, inside)) is not None:
            return found | all_of(keys, "stops", why)
        known = {name: module for name, module in inside.items() if self._is_layer(name)}
        for name in inside.keys() - known.keys():
            found |= all_of(inside[name].keys.values(), "dropped", self._why_unknown(name))
        is_lokr = any(module.has("lokr_") for module in inside.values())
        for module in known.values():
            found |= self._lokr(file, module) if is_lokr else self._lora(file, module, known)
        return found

    @abstractmethod
    def applied(self, file: ForeignFile, module: FileModule, ranks: Mapping[str, int]) -> float:
        """Return the strength at which a module is used.

        Args:
            ranks: of all modules of the file, by name.
        """

    def _is_layer(self, name: str) -> bool:
        return generalise(name.removeprefix(self.prefix))[0] in self.layers

    def _why_stops(self, file: ForeignFile, modules: Mapping[str, FileModule]) -> str | None:
        """Say why the loader raises an error; None if it does not."""
        if not any(self._is_layer(name) for name in modules):
            return f"none of the names is a layer of {self.program}'s transformer"
        if (why := self._bad_settings(file)) is not None:
            return why
        if any(module.has("lokr_") for module in modules.values()):
            return self._why_lokr_stops(modules)
        if not any(module.has("lora_B") for module in modules.values()):
            return "no tensor is called lora_B"
        for name, module in modules.items():
            down, up = module.shapes.get("lora_down.weight"), module.shapes.get("lora_up.weight")
            if down and up and all(part in module.keys for part in _LORA) and down[0] != up[1]:
                return f"{name} has {up[1]} columns in lora_B, but {down[0]} rows in lora_A"
        return None

    def _why_lokr_stops(self, modules: Mapping[str, FileModule]) -> str | None:
        sizes = [size for module in modules.values() if (size := _sides(module)) is not None]
        if common_factor(sizes) is None:
            return "PEFT builds all LoKr of a file with one factor, and none gives the sizes of these"
        return None

    def _bad_settings(self, file: ForeignFile) -> str | None:
        """Say why the settings in the metadata raise an error; None if they do not."""
        text = file.metadata.get(ADAPTER_METADATA)
        if not text:
            return None
        names = parse_object(text)
        if any(name.startswith(self.prefix) for name in names) and (
            self.prefix or not any(name.startswith("transformer.") for name in names)
        ):
            return None
        expected = f"do not begin with {self.prefix}" if self.prefix else "have a prefix"
        return f"the names in {ADAPTER_METADATA}, in its metadata, {expected}{self.when_read}"

    def _lora(self, file: ForeignFile, module: FileModule, others: Mapping[str, FileModule]) -> Verdicts:
        magnitudes = {part: key for part, key in module.keys.items() if _MAGNITUDE.fullmatch(part)}
        matrices = {part: key for part, key in module.keys.items() if part in _LORA}
        found: Verdicts = dict.fromkeys([*matrices.values(), *magnitudes.values()], LOADS)
        for part, key in module.keys.items():
            if key not in found:
                found[key] = Verdict("dropped", f"{self.program} reads no {part}")
        if len(matrices) == 1:
            (part,) = matrices
            lacks = _LORA[1] if part == _LORA[0] else _LORA[0]
            what = "zero" if lacks == _LORA[1] else "drawn at random"
            return found | all_of(found, "wrong", f"{lacks} is missing, and {what} instead")
        if not matrices:
            return found | all_of(magnitudes.values(), "dropped", "a magnitude without a LoRA")
        if (why := self._wrong_dora(file, module, others)) is not None:
            return found | all_of([*matrices.values(), *magnitudes.values()], "wrong", why)
        return found | self._strength(file, module, matrices.values(), others)

    def _strength(
        self, file: ForeignFile, module: FileModule, keys: Iterable[str], others: Mapping[str, FileModule]
    ) -> Verdicts:
        ranks = {name: rank for name, other in others.items() if (rank := other.rank) is not None}
        applied = self.applied(file, module, ranks)
        if math.isclose(applied, module.meant, rel_tol=1e-6):
            return {}
        where = ".alpha tensors" if module.alpha is not None else f"the strength in the metadata{self.otherwise}"
        factor = times(applied / module.meant) if module.meant else "its strength should be 0"
        return all_of(keys, "wrong", f"{self.program} does not read {where}: {factor}")

    def _wrong_dora(self, file: ForeignFile, module: FileModule, others: Mapping[str, FileModule]) -> str | None:
        if module.has("lora_magnitude_vector"):
            return "PEFT divides magnitudes by the norms of the changed weight" if file.base_norms else None
        if module.has("dora_scale"):
            return LOST_MAGNITUDES
        if any(other.has("lora_magnitude_vector") for other in others.values()):
            return "it has no magnitudes, but PEFT makes a DoRA of it because other modules have them"
        return None

    def _lokr(self, file: ForeignFile, module: FileModule) -> Verdicts:
        found: Verdicts = {
            key: LOADS if _LOKR.fullmatch(part) else Verdict("dropped", f"beside LoKr, {self.program} reads no {part}")
            for part, key in module.keys.items()
        }
        factors = {part: key for part, key in module.keys.items() if _LOKR.fullmatch(part)}
        if not factors:
            return found
        sides = _sides(module)
        if sides is None:
            return found | all_of(factors.values(), "wrong", "a factor of the LoKr is missing")
        rank = module.rank
        if rank is not None and "lokr_w2_a" in factors and rank >= max(sides[1]) / 2:
            why = f"PEFT builds w2 as one matrix at rank {rank}, and does not find these two"
            return found | all_of(factors.values(), "wrong", why)
        return found | self._strength(file, module, factors.values(), {})

    def _why_unknown(self, name: str) -> str:
        parts = find_parts(name)
        if parts is None:
            return NO_LAYER
        if len(parts) > 1:
            return f"{self.program} has q, k and v apart"
        return other_name(self.program)


class Diffusers(PeftLoader):
    """`pipe.transformer.load_lora_adapter(FILE)`."""

    program = "diffusers"
    prefix = "transformer."
    layers = frozenset(layout_places("diffusers"))
    when_read = ": an error with use_safetensors=True or weight_name="
    otherwise = " without use_safetensors=True or weight_name="

    def applied(self, file: ForeignFile, module: FileModule, ranks: Mapping[str, int]) -> float:
        return 1.0


class Official(PeftLoader):
    """`generate.py --lora_path FILE`."""

    program = "the official code"
    prefix = ""
    layers = frozenset(layout_places("official"))

    def applied(self, file: ForeignFile, module: FileModule, ranks: Mapping[str, int]) -> float:
        if file.settings:
            return _by_settings(file.settings, module)
        # The diffusers that it asks for takes the most frequent rank as everyone's alpha.
        usual = Counter(ranks.values()).most_common(1)[0][0]
        return usual / ranks[module.name]

    def _why_lokr_stops(self, modules: Mapping[str, FileModule]) -> str | None:
        return "the diffusers that it asks for knows no LoKr"


def _by_settings(settings: PeftSettings, module: FileModule) -> float:
    """Return the strength that PEFT takes from the settings, whether an `.alpha` tensor says another or not."""
    shapes = {part: shape for part, shape in module.shapes.items() if part != "alpha"}
    strength = strength_of(settings, module.name, shapes)
    if strength is None:
        raise UserError(f"LoRA: {ADAPTER_METADATA} has no strength for {module.name}", hint="export it again")
    return strength.alpha / strength.rank


def _sides(module: FileModule) -> tuple[Matrix, Matrix] | None:
    """Return rows and columns of w1 and w2 of a LoKr; None if a factor is missing."""
    sizes = []
    for side in ("lokr_w1", "lokr_w2"):
        left = module.shapes.get(side) or module.shapes.get(f"{side}_a", ())
        right = module.shapes.get(side) or module.shapes.get(f"{side}_b", ())
        if len(left) != 2 or len(right) != 2:
            return None
        sizes.append((left[0], right[1]))
    return sizes[0], sizes[1]
