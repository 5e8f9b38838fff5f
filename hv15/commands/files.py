"""`hv15 convert`, `ema`, `merge`, `download` and `demo`: files in, files out."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.commands.logs import log_to_stderr
from hv15.commands.options.files import Convert, DemoClips, DemoModels, Download, Ema, Merge
from hv15.errors import UserError
from hv15.project import Project
from hv15.records.metadata import CONVERSION_NOTE
from hv15.terminal_text import one_line

if TYPE_CHECKING:
    from hv15.choices import LoRALayout


def convert(options: Convert) -> None:
    """Rewrite a LoRA in the names of another program.

    Raises:
        UserError: contradicting options, or the LoRA cannot be read or converted.
    """
    from hv15.lora.files import convert_file
    from hv15.lora.kinds import count_modules
    from hv15.models.weights.header import read_header

    log_to_stderr("info")
    if options.reverse and options.to not in (None, "kohya"):
        raise UserError(
            f"--reverse together with --to {options.to}: --reverse means --to kohya", hint="give one of the two"
        )
    to: LoRALayout = "kohya" if options.reverse else options.to or "comfyui"
    _check_target(options.target, [options.source])
    note = convert_file(options.source, options.target, to, svd_rank=options.svd_rank, base=options.base).get(
        CONVERSION_NOTE
    )
    modules = count_modules(read_header(options.target).entries)
    print(
        f"{one_line(str(options.target))}: {to} layout, {modules} modules" + (f"; {note}" if note else ""),
        file=sys.stderr,
    )


def ema(options: Ema) -> None:
    """Average LoRA files of one training.

    Raises:
        UserError: a file cannot be used, or they do not belong together.
    """
    from hv15.lora.averaging import average_loras

    _check_target(options.out, options.files)
    parts = average_loras(options.files, options.out, options.sigma_rel)
    for path, weight in parts:
        print(f"{weight:6.1%}  {one_line(str(path))}", file=sys.stderr)
    print(f"{one_line(str(options.out))}: the average of {len(parts)} LoRAs", file=sys.stderr)


def merge(options: Merge) -> None:
    """Save the transformer with LoRAs merged into its weights (save_merged_model).

    Raises:
        UserError: options that do not belong together, or a file that cannot be used.
    """
    from hv15.lora.merging import merge_to_file
    from hv15.lora.weighted import WeightedLoRA
    from hv15.models.facts import describe

    if options.multiplier and len(options.multiplier) != len(options.lora):
        raise UserError(
            f"{len(options.lora)} --lora but {len(options.multiplier)} --multiplier",
            hint="give one --multiplier for each --lora, or none",
        )
    project = Project(options.config, options.overrides)
    multipliers = options.multiplier or [1.0] * len(options.lora)
    loras = [WeightedLoRA(path, multiplier) for path, multiplier in zip(options.lora, multipliers, strict=True)]
    _check_target(options.out, [project.models.path("dit"), *options.lora])
    merge_to_file(project.models.path("dit"), loras, options.out)
    in_fp8 = describe(project.models.path("dit")).in_fp8
    note = "; its float8 weights were written in the number format of the others" if in_fp8 else ""
    print(f"{one_line(str(options.out))}: {describe(options.out)}{note}", file=sys.stderr)


def _check_target(target: Path, sources: Iterable[Path]) -> None:
    """Refuse a target without the suffix .safetensors, and one that is also a source."""
    if target.suffix != ".safetensors":
        raise UserError.at(target, "expected a name that ends in .safetensors", hint="choose such a name")
    if any(target.exists() and source.exists() and target.samefile(source) for source in sources):
        raise UserError.at(target, "is both read and written", hint="give the result another name")


def download(options: Download) -> None:
    """Fetch the model files that the config names.

    Raises:
        UserError: the config downloads nothing, or the Hub does not provide a file.
    """
    from hv15.config import load_config
    from hv15.models.hub import download

    log_to_stderr("info")
    settings = load_config(options.config, options.overrides)
    if settings.models.source != "hub":
        raise UserError.at(
            options.config,
            f"models.source is {settings.models.source}, so nothing is downloaded",
            hint="set models.source to hub",
        )
    for path in download(settings, options.files):
        print(path, file=sys.stderr)


def demo_models(options: DemoModels) -> None:
    """Copy the demo's models into the project."""
    from hv15.config import load_config
    from hv15.demo.layout import copy_base

    settings = load_config(options.config, options.overrides)
    copy_base(settings.resolve(settings.models.directory))


def demo_clips(options: DemoClips) -> None:
    """Draw the demo's captioned clips."""
    from hv15.config import load_config
    from hv15.demo.clips import DEMO_FOLDERS

    settings = load_config(options.config, options.overrides)
    for name, write in DEMO_FOLDERS.items():
        write(settings.root / name)
