"""What a program does with a LoRA file, tensor by tensor, and what to do about it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hv15.choices import LoRALayout, LoRAProgram
from hv15.lora.kinds import other_family
from hv15.lora.names import find_parts
from hv15.lora.programs import comfyui, musubi
from hv15.lora.programs.file import ForeignFile, read_file
from hv15.lora.programs.peft_loaders import Diffusers, Official
from hv15.lora.programs.verdicts import OUTCOMES, Outcome, Verdict, Verdicts
from hv15.models.layouts import looks_like

_RULES: dict[LoRAProgram, Callable[[ForeignFile], Verdicts]] = {
    "comfyui": comfyui.verdicts,
    "diffusers": Diffusers().verdicts,
    "official": Official().verdicts,
    "musubi": musubi.verdicts,
}
LAYOUT_OF: dict[LoRAProgram, LoRALayout] = {
    "comfyui": "comfyui",
    "diffusers": "diffusers",
    "official": "official",
    "musubi": "kohya",
}
"""The layout that each program reads."""


@dataclass(frozen=True)
class Verification:
    """What a program does with the tensors of a file, in the file's order."""

    path: Path
    program: LoRAProgram
    verdicts: Verdicts
    foreign: str | None = None
    """The first module that is no layer of the model."""
    is_lora: bool = True
    """Whether any tensor is of a kind of LoRA."""
    is_broken: bool = False
    """Whether matrices of it do not fit together."""

    @property
    def is_right(self) -> bool:
        """Whether everything is used as it is meant, apart from alphas that the program does not need."""
        return all(verdict.outcome == "loads" or self._is_unneeded(key) for key, verdict in self.verdicts.items())

    def counts(self) -> dict[Outcome, int]:
        """Return how many tensors have each outcome, the worst first."""
        outcomes = [verdict.outcome for verdict in self.verdicts.values()]
        return {outcome: outcomes.count(outcome) for outcome in OUTCOMES if outcome in outcomes}

    def by_verdict(self) -> dict[Verdict, list[str]]:
        """Return the names of tensors by verdict, the worst first."""
        found: dict[Verdict, list[str]] = {}
        for key, verdict in self.verdicts.items():
            found.setdefault(verdict, []).append(key)
        return dict(sorted(found.items(), key=lambda item: OUTCOMES.index(item[0].outcome)))

    def advice(self) -> str | None:
        """Say what to do; None if nothing is wrong."""
        if self.is_right:
            return None
        if self.is_broken:
            return "export it again: some of its matrices do not fit together, so no program can use it"
        if self.foreign or not self.is_lora:
            found = f"{self.foreign} is none of its layers" if self.foreign else "this file holds no LoRA"
            likeness = other_family(self.verdicts) if self.is_lora else looks_like(self.verdicts)
            return f"use a LoRA for HunyuanVideo 1.5: {found}" + (f"; it looks like {likeness}" if likeness else "")
        layout = LAYOUT_OF[self.program]
        words = ["hv15", "convert", str(self.path), f"{self.path.stem}.{layout}.safetensors", "--to", layout]
        if any(part in key for key in self.verdicts for part in ("dora_scale", "magnitude", "oft_", ".a1.")):
            words += ["--base", "TRANSFORMER"]
        peft = layout in ("diffusers", "official")
        if peft and any(part in key for key in self.verdicts for part in ("hada_", "lokr_", ".diff")):
            words += ["--svd-rank", "64"]
        return shlex.join(words)

    def _is_unneeded(self, key: str) -> bool:
        """Whether a tensor that is left out is an alpha that would not change the strength."""
        return self.verdicts[key].outcome == "dropped" and key.endswith(".alpha") and not self._is_wrong(key)

    def _is_wrong(self, alpha: str) -> bool:
        module = alpha.removesuffix("alpha")
        same = (verdict for key, verdict in self.verdicts.items() if key.startswith(module) and key != alpha)
        return any(verdict.outcome != "loads" for verdict in same)


def verify(path: Path, program: LoRAProgram) -> Verification:
    """Say what a program would do with a LoRA file of any layout.

    Raises:
        UserError: the file is missing or damaged.
    """
    file = read_file(path)
    found = _RULES[program](file)
    broken = [module for module in file.modules.values() if module.misfit]
    for module in broken:
        found |= {key: Verdict("stops", module.misfit) for key in module.keys.values() if found[key].outcome == "loads"}
    foreign = next((name for name in file.modules if find_parts(name) is None), None)
    verdicts = {key: found[key] for key in file.tensors()}
    return Verification(path, program, verdicts, foreign, is_lora=bool(file.modules), is_broken=bool(broken))
