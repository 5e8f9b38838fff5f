"""`hv15 convert`, `ema`, `merge`, `download` and `demo`: files in, files out."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.commands.logs import log_to_stderr
from hv15.commands.options.files import Convert, DemoClips, DemoModels, Download, Ema, Export, Merge
from hv15.errors import UserError
from hv15.project import Project
from hv15.records.metadata import CONVERSION_NOTE
from hv15.terminal_text import one_line
from hv15.weighted_file import read_weighted_file

if TYPE_CHECKING:
    from hv15.choices import LoRALayout
    from hv15.lora.reach import Reach


TORCH_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp8": "bfloat16"}
"""torch's names of number formats; what is not quantised beside fp8 is bf16."""


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
    check_target(options.target, [options.source])
    note = convert_file(options.source, options.target, to, svd_rank=options.svd_rank, base=options.base).get(
        CONVERSION_NOTE
    )
    modules = count_modules(read_header(options.target).entries)
    print(
        f"{one_line(str(options.target))}: {to} layout, {modules} modules" + (f"; {note}" if note else ""),
        file=sys.stderr,
    )


def export(options: Export) -> None:
    """Write the copy of a LoRA for another program that the workflow publishes, and check that it is loaded there.

    Raises:
        UserError: the LoRA cannot be read or converted, or the program would not use all of it as it is meant.
    """
    from hv15.config import load_config
    from hv15.lora.about import About
    from hv15.lora.files import convert_file
    from hv15.lora.programs.verify import verify

    log_to_stderr("info")
    settings = load_config(options.config, options.overrides, experiment=options.experiment)
    about = About.from_settings(settings.convert, settings.root)
    check_target(options.out, [options.lora])
    convert_file(options.lora, options.out, options.to, about=about)
    found = verify(options.out, options.to)
    if not found.is_right:
        verdict, keys = next(iter(found.by_verdict().items()))
        raise UserError.at(
            options.out,
            f"{options.to} would not use {len(keys)} of {len(found.verdicts)} tensors as they are meant, first "
            f"{keys[0]}: {verdict.outcome}, {verdict.why}",
            hint=f"leave {options.to} out of convert.formats, and say how the LoRA was made: this is a mistake in hv15",
        )
    print(f"{one_line(str(options.out))}: {len(found.verdicts)} tensors, as {options.to} loads them", file=sys.stderr)


def ema(options: Ema) -> None:
    """Average LoRA files of one training.

    Raises:
        UserError: a file cannot be used, or they do not belong together.
    """
    from hv15.lora.averaging import average_loras
    from hv15.workflow.one_training import refuse_other_trainings

    check_target(options.out, options.files)
    refuse_other_trainings(options.files)
    parts = average_loras(options.files, options.out, options.sigma_rel)
    for path, weight in parts:
        print(f"{weight:6.1%}  {one_line(str(path))}", file=sys.stderr)
    print(f"{one_line(str(options.out))}: the average of {len(parts)} LoRAs", file=sys.stderr)


def merge(options: Merge) -> None:
    """Save the transformer with LoRAs merged into its weights (save_merged_model).

    Raises:
        UserError: options that do not belong together, or a file that cannot be used.
    """
    import torch

    from hv15.lora.merging import merge_to_file
    from hv15.lora.weighted import WeightedLoRA
    from hv15.models.facts import describe
    from hv15.models.weights.fp8_writer import Fp8Writer

    if options.multiplier and len(options.multiplier) != len(options.lora):
        raise UserError(
            f"{len(options.lora)} --lora but {len(options.multiplier)} --multiplier",
            hint="give one --multiplier for each --lora, or none",
        )
    weighted = [read_weighted_file(words) for words in options.lora]
    if options.multiplier and any(strength is not None for _, strength in weighted):
        raise UserError(
            "strengths are given by --multiplier and behind the names of files", hint="give them in one of these ways"
        )
    strengths = options.multiplier or [1.0 if strength is None else strength for _, strength in weighted]
    reach, files = _reach(options), [path for path, _ in weighted]
    loras = [WeightedLoRA(path, strength, reach=reach) for path, strength in zip(files, strengths, strict=True)]
    base = options.dit
    if base is None and not options.config.exists():
        raise UserError(
            f"no transformer: there is neither --dit nor a project ({options.config})",
            hint="name the transformer with --dit, or a project's folder",
        )
    if base is None:
        base = Project(options.config, options.overrides, experiment=options.experiment).models.path("dit")
    if options.shard_size is None:
        check_target(options.out, [base, *files])
    elif options.out.suffix == ".safetensors" or options.shard_size <= 0:
        raise UserError.at(options.out, "--shard-size needs a folder, and a size above 0", hint="name a new folder")
    fp8 = Fp8Writer() if options.dtype == "fp8" else None
    dtype = None if options.dtype is None else getattr(torch, TORCH_NAMES[options.dtype])
    error = merge_to_file(
        base,
        loras,
        options.out,
        layout=options.layout,
        dtype=dtype,
        fp8=fp8,
        shard_bytes=None if options.shard_size is None else int(options.shard_size * 1e9),
    )
    if fp8 is not None:
        notes = [f"; rounding to fp8 changes the blocks' weights by {fp8.error:.1e} of their norm"]
    else:
        notes = [f"; rounding changes the merged weights by {error:.1e} of their norm" if error else "; exact"]
    if fp8 is None and describe(base).in_fp8:
        notes.append("; its float8 weights were written in the number format of the others")
    print(f"{one_line(str(options.out))}: {describe(options.out)}{''.join(notes)}", file=sys.stderr)


def _reach(options: Merge) -> Reach:
    """Where the LoRAs that are merged act."""
    from hv15.lora.reach import Reach, StrengthPart

    parts = tuple(StrengthPart(each.factor, blocks=(int(each.begin), int(each.end))) for each in options.lora_blocks)
    return Reach(options.include, options.exclude, parts)


def check_target(target: Path, sources: Iterable[Path]) -> None:
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
    settings = load_config(options.config, options.overrides, experiment=options.experiment)
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

    settings = load_config(options.config, options.overrides, experiment=options.experiment)
    copy_base(settings.resolve(settings.models.directory))


def demo_clips(options: DemoClips) -> None:
    """Draw the demo's captioned clips."""
    from hv15.config import load_config
    from hv15.demo.clips import DEMO_FOLDERS

    settings = load_config(options.config, options.overrides, experiment=options.experiment)
    for name, write in DEMO_FOLDERS.items():
        write(settings.root / name)
