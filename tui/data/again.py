"""A sample that is made once more with other settings: what can be changed, and the command that makes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hv15.config import SampleSettings
from hv15.config.problems import explain
from hv15.config.sample_columns import NO_LORA
from hv15.errors import UserError
from hv15.records.json_values import Json, JsonObject
from hv15.records.paths import ProjectPaths
from hv15.records.problems import NOWHERE
from hv15.runs import control
from hv15.runs.record import RunFolder
from hv15.sample.resolutions import parse_size
from tui.data.lora_names import THIS_LORA, NamedLoRA, name_of_lora
from tui.data.samples import Sample, UsedFile


@dataclass(frozen=True)
class AgainFields:
    """What a person types; an empty field leaves the project's own value."""

    prompt: str = ""
    negative: str = ""
    seed: str = ""
    """One number or several."""
    steps: str = ""
    guidance: str = ""
    lora: str = NO_LORA
    """The name of one of the project's LoRAs."""
    strength: str = ""
    size: str = ""
    """Height and width, or an official size such as `720p 16:9`."""
    frames: str = ""


_SETTINGS = {
    "steps": "infer_steps",
    "guidance": "guidance_scale",
    "strength": "lora_multiplier",
    "frames": "video_length",
}
"""Fields -> the settings of `sample:` that say what they may hold."""


class FieldError(UserError):
    """What is typed into a field cannot be used."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message, hint="correct it")
        self.name = name
        """Of the field."""


class Again:
    """One sample, made again.

    Args:
        loras: the project's LoRAs that are there, none first. If the sample was made with another file, that can be
            chosen too.
    """

    def __init__(self, sample: Sample, config: Path, loras: Sequence[NamedLoRA]) -> None:
        self.sample, self._config, self._root = sample, config, config.parent
        used, self._others = _used_loras(sample)
        name = NO_LORA if used is None else name_of_lora(Path(used.path), self._root)
        is_there = name in (each.name for each in loras)
        if used is not None and not is_there and (self._root / used.path).is_file():
            loras, is_there = [*loras, NamedLoRA(name, Path(used.path))], True
        self.loras = tuple(loras)
        which = "its LoRA" if name == THIS_LORA else f"its LoRA ({name})"
        self.note = "" if is_there else f"{which} is not there: it was not kept, or is not made yet"
        """What cannot be as it was; "" if all can."""
        strength = 1.0 if used is None else used.multiplier
        self.fields = self._fields(name if is_there else self.loras[min(1, len(loras) - 1)].name, strength)
        """As the sample was made."""

    @property
    def others(self) -> str:
        """The LoRAs that are used besides the chosen one, in words."""
        return " + ".join(
            f"{name_of_lora(Path(each.path), self._root)} at {each.multiplier:g}" for each in self._others
        )

    def start(self, typed: AgainFields) -> RunFolder:
        """Start making it, as a run.

        Raises:
            FieldError: a field cannot be used.
            UserError: a run is in progress, or none can be started.
        """
        return control.start_command(self._config, self.title(typed), self.command(typed))

    def title(self, typed: AgainFields) -> str:
        """Return the name of the sample with what differs from it, such as `red: seed 5, 30 steps`."""
        before = self.fields
        form = {
            "seed": f"seed {typed.seed}",
            "steps": f"{typed.steps} steps",
            "guidance": f"guidance {typed.guidance}",
            "lora": typed.lora,
            "strength": f"strength {typed.strength}",
            "size": typed.size,
            "frames": f"{typed.frames} frames",
            "prompt": "another prompt",
            "negative": "another negative prompt",
        }
        changed = [words for name, words in form.items() if getattr(typed, name) != getattr(before, name)]
        return f"{self.sample.prompt_name}: {', '.join(changed) or 'as it was'}"

    def command(self, typed: AgainFields) -> list[str]:
        """Return the words of `hv15 sample`. Paths are from the project folder, in which it is started.

        Raises:
            FieldError: a field cannot be used.
        """
        seeds = typed.seed.replace(",", " ").split()
        size = _size(typed.size)
        _check(typed, seeds, size)
        settings = self.sample.settings
        words = ["sample", "--project", str(self._config), "--out", str(ProjectPaths().again), "--sr", "off"]
        words += ["--seed", *seeds] if seeds else []
        words += ["--size", *map(str, size)] if size else []
        options = {
            "steps": typed.steps,
            "frames": typed.frames,
            "guidance": typed.guidance,
            "shift": settings.flow_shift,
            "fps": settings.fps,
            "negative": typed.negative,
            "image": settings.image.path if settings.image else None,
        }
        # Always one word: a value may begin with a dash
        words += [f"--{name}={value}" for name, value in options.items() if value is not None and value != ""]
        loras = [*self._lora(typed), *self._others]
        words += ["--lora", *(f"{each.path}:{each.multiplier:g}" for each in loras)] if loras else []
        return [*words, "--", typed.prompt.strip()]

    def _lora(self, typed: AgainFields) -> Iterator[UsedFile]:
        path = next((each.path for each in self.loras if each.name == typed.lora), None)
        if path is not None:
            yield UsedFile(str(path), float(typed.strength or 1))

    def _fields(self, lora: str, strength: float) -> AgainFields:
        settings = self.sample.settings
        return AgainFields(
            prompt=settings.prompt,
            negative=settings.negative_prompt,
            seed=_text(settings.seed),
            steps=_text(settings.steps),
            guidance=_text(settings.guidance_scale),
            lora=lora,
            strength=f"{strength:g}",
            size=f"{settings.height} {settings.width}" if settings.height and settings.width else "",
            frames=_text(settings.frames),
        )


def _used_loras(sample: Sample) -> tuple[UsedFile | None, tuple[UsedFile, ...]]:
    """The LoRA of a sample that can be exchanged, which is the trained one if it has that, and the others."""
    settings = sample.settings
    if sample.kind == "base":
        return None, settings.loras
    if sample.kind == "again":
        return (settings.loras[0], settings.loras[1:]) if settings.loras else (None, ())
    if settings.lora_multiplier is None and settings.prompt:
        return None, settings.loras  # a project that trains nothing
    paths = ProjectPaths(run=sample.experiment)
    file = paths.trained if sample.step is None else paths.checkpoint_lora(sample.step)
    strength = 1.0 if settings.lora_multiplier is None else settings.lora_multiplier
    return UsedFile(str(file), strength), settings.loras


def _size(text: str) -> tuple[int, int] | None:
    words = tuple(text.replace(",", " ").split())
    try:
        return parse_size(words, typed="") if words else None
    except UserError as error:
        raise FieldError("size", f"{error.message.partition(': ')[2] or error.message} ({error.hint})") from error


def _check(typed: AgainFields, seeds: Sequence[str], size: tuple[int, int] | None) -> None:
    """Check values as the config checks them.

    Raises:
        FieldError: the first that cannot be used.
    """
    if not typed.prompt.strip():
        raise FieldError("prompt", "expected what the video shows")
    for seed in seeds:
        _check_setting("seed", "seed", seed)
    for name, setting in _SETTINGS.items():
        if text := getattr(typed, name):
            _check_setting(name, setting, text)
    if size is not None:
        _check_setting("size", "video_size", list(size))


def _check_setting(name: str, setting: str, value: Json) -> None:
    data: JsonObject = {setting: value}
    try:
        SampleSettings.model_validate(data)
    except ValidationError as error:
        problem = explain(error, SampleSettings, data, lambda *_: NOWHERE)[0]
        raise FieldError(name, problem.message) from error


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
