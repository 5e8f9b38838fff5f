"""The `hv15` command: each stage of the workflow, and what a person wants to look at.

The rules call the same commands. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hv15 import __version__
from hv15.errors import UserError
from hv15.out_of_memory import STAGES, OutOfMemory, is_out_of_memory

USER_ERROR = 2
"""Exit code for everything that a user can put right."""


INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell; a training that has saved its state exits with 3 instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = build_parser().parse_args(arguments)
    module, function = options.run.split(":")
    try:
        return int(getattr(importlib.import_module(f"hv15.commands.{module}"), function)(options) or 0)
    except BrokenPipeError:  # the reader of our output has gone (hv15 show | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:
        from hv15.runs.failures import write_failure

        failure = _explained(error, options)
        write_failure(failure)
        if isinstance(failure, KeyboardInterrupt):
            print("stopped; what is finished is kept: run the same command to go on", file=sys.stderr)
            return INTERRUPTED
        if not isinstance(failure, UserError):
            raise
        print(f"error: {failure}", file=sys.stderr)
        return USER_ERROR


def _explained(error: BaseException, options: argparse.Namespace) -> BaseException:
    """The same error; where memory was not enough, with the settings that would make it so."""
    if options.run in STAGES and not isinstance(error, UserError) and is_out_of_memory(error):
        error = OutOfMemory(STAGES[options.run], error)
    if not isinstance(error, OutOfMemory):
        return error
    from hv15.commands.plan import explain

    error.hint = explain(error, options).hint
    return error


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options; `run` of the result names `module:function` in hv15.commands."""
    parser = argparse.ArgumentParser("hv15", description="HunyuanVideo 1.5 LoRAs: encode, train, sample, convert.")
    parser.add_argument("--version", action="version", version=f"hv15 {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    project = argparse.ArgumentParser(add_help=False)
    # The workflow tells its jobs by environment variables which project they belong to (hv15.project).
    config, overrides = os.environ.get("HV15_CONFIG", "config.yaml"), os.environ.get("HV15_OVERRIDES", "{}")
    project.add_argument("--config", type=Path, default=config, help="the config file (config.yaml)")
    project.add_argument("--overrides", type=_mapping, default=overrides, metavar="JSON", help="settings over its own")

    _project_commands(commands, project)
    _run_commands(commands)
    _stage_commands(commands, project)
    _file_commands(commands, project)
    return parser


def _project_commands(commands: Any, project: argparse.ArgumentParser) -> None:
    new = _add(commands, "new", "project:new", "make a project folder with a commented config.yaml")
    new.add_argument("folder", type=Path)
    new.add_argument("--preset", default="t2v-24gb", help="the settings to start from (t2v-24gb)")

    check = _add(commands, "check", "project:check", "check settings, models, dataset and disk before a run", project)
    check.add_argument("--models", action="store_true", help="the model files only")

    plan = _add(commands, "plan", "plan:plan", "say beforehand what each stage needs, and how long it takes", project)
    plan.add_argument("--device", help="a GPU by name, such as 4090 or a100-80gb (this machine's)")
    plan.add_argument("--memory", metavar="SIZE", help="any GPU with so much memory, such as 16GiB")
    plan.add_argument("--json", action="store_true", help="for programs")
    plan.add_argument("--out", type=Path, help="write it to a file")

    show = _add(commands, "show", "project:show", "print what a LoRA, a sample or a checkpoint was made from")
    show.add_argument("file", type=Path)
    show.add_argument("--config", dest="as_config", action="store_true", help="print a config.yaml that reproduces it")

    clean = _add(commands, "gc", "project:collect", "remove encoded items that no manifest names", project)
    clean.add_argument(
        "--unused", action="store_true", help="also what this config does not need (of all who share the cache)"
    )
    clean.add_argument("--yes", action="store_true", help="remove them; without it they are only counted")

    _add(commands, "repair", "project:repair", "read every encoded item and drop damaged ones", project)


def _run_commands(commands: Any) -> None:
    run = _add(commands, "run", "runs:run", "start the workflow, detached: it outlives this terminal")
    stop = _add(commands, "stop", "runs:stop", "save and stop, as Ctrl-C does; what is finished is kept")
    status = _add(commands, "status", "runs:status", "say what runs, or how the last run ended")
    tui = _add(commands, "tui", "runs:tui", "edit, start and watch everything in the terminal")
    for part in (run, stop, status, tui):
        part.add_argument("project", type=Path, nargs="?", default=Path(), help="its folder or config file (here)")
    run.add_argument("--target", action="append", default=[], help="what to make (results/lora.safetensors)")
    run.add_argument("--follow", action="store_true", help="print its output until it ends")
    run.add_argument("--unlock", action="store_true", help="only remove the lock that a killed Snakemake left")
    run.add_argument(
        "--snakemake", nargs=argparse.REMAINDER, default=[], metavar="WORDS", help="what follows goes to snakemake"
    )
    stop.add_argument("--now", action="store_true", help="kill it: work since the last saved state is lost")
    stop.add_argument("--wait", type=float, default=120.0, metavar="SECONDS", help="how long to wait for its end (120)")
    status.add_argument("--json", action="store_true", help="for programs")
    tui.add_argument("--demo", action="store_true", help="show a recorded run instead of a project")
    tui.add_argument("--serve", action="store_true", help="for a browser on this machine, instead of the terminal")
    tui.add_argument("--port", type=int, help="for --serve; 0 takes a free one (8765)")


def _stage_commands(commands: Any, project: argparse.ArgumentParser) -> None:
    encode = commands.add_parser("encode", help="encode clips or texts into the store")
    kinds = encode.add_subparsers(metavar="KIND", required=True)
    for kind, text in (("latents", "clips: VAE, and SigLIP for i2v"), ("texts", "captions and prompts: Qwen, ByT5")):
        part = _add(kinds, kind, f"encode:{kind}", text, project)
        part.add_argument("--shard", type=int, help="one shard only (all)")
        part.add_argument("--expect", default="", metavar="DIGEST", help="stop unless the shard needs exactly this")
        part.add_argument("--out", type=Path, help="the shard's manifest (its place in the cache)")

    report = commands.add_parser("report", help="list what was encoded and what was left out, and why")
    kinds = report.add_subparsers(metavar="KIND", required=True)
    for kind in ("latents", "texts"):
        part = _add(kinds, kind, f"encode:report_{kind}", f"of {kind}", project)
        part.add_argument("--out", type=Path, help="the report file (its place in the cache)")

    spec = commands.add_parser("spec", help="write down what a training or a sample depends on")
    kinds = spec.add_subparsers(metavar="KIND", required=True)
    of_sample = _add(kinds, "sample", "sample:write_spec", "of a sample", project)
    of_sample.add_argument("--name", required=True, help="the prompt's name")
    of_sample.add_argument("--denoising", action="store_true", help="only the part that its latents depend on")
    of_train = _add(kinds, "train", "train:write_spec", "of the training", project)
    of_products = _add(kinds, "products", "sample:write_products", "of the finished LoRA: what belongs to it", project)
    for part in (of_sample, of_train, of_products):
        part.add_argument("--attempt", type=int, default=1, help="counts how often the workflow has tried (1)")
        part.add_argument("--out", type=Path, required=True)

    train = _add(commands, "train", "train:train", "train the LoRA, or go on from its last state", project)
    train.add_argument("--spec", type=Path, help="stop unless the training depends on exactly this")
    train.add_argument("--out", type=Path, default=Path("results/train.safetensors"))

    _sample_commands(commands, project)


def _sample_commands(commands: Any, project: argparse.ArgumentParser) -> None:
    sample = commands.add_parser("sample", help="encode an i2v image, denoise, decode")
    steps = sample.add_subparsers(metavar="STEP", required=True)
    condition = _add(steps, "condition", "sample:condition", "encode the first image of an i2v sample", project)
    denoise = _add(steps, "denoise", "sample:denoise", "make the latents of a sample", project)
    denoise.add_argument("--lora", type=Path, help="the trained LoRA; without it the base model samples")
    denoise.add_argument("--condition", type=Path, help="the encoded first image (i2v)")
    decode = _add(steps, "decode", "sample:decode", "turn latents into a video or images", project)
    decode.add_argument(
        "--latents", "--latent_path", type=Path, required=True, help="a .latents.safetensors file; enough by itself"
    )
    for step in (condition, denoise, decode):
        text = "the sample's .json file" + (" (what the latents say themselves)" if step is decode else "")
        step.add_argument("--spec", type=Path, required=step is not decode, help=text)
        step.add_argument("--out", type=Path, required=True)
    sheet = _add(steps, "sheet", "sheet:draw", "all samples in one picture, and what the LoRA changed", project)
    sheet.add_argument("--out", type=Path, default=Path("results/samples/contact_sheet.png"))


def _file_commands(commands: Any, project: argparse.ArgumentParser) -> None:
    convert = _add(commands, "convert", "files:convert", "rewrite a LoRA in another program's names")
    convert.add_argument("source", type=Path)
    convert.add_argument("target", type=Path)
    convert.add_argument("--to", choices=("kohya", "comfyui", "diffusers", "official"), help="(comfyui)")
    convert.add_argument("--reverse", action="store_true", help="back to hv15's own names; the same as --to kohya")
    convert.add_argument("--svd-rank", type=int, help="for LoHa and LoKr: approximate by a LoRA of this rank")

    merge = _add(
        commands,
        "merge",
        "files:merge",
        "save the transformer with LoRAs merged into its weights (save_merged_model)",
        project,
    )
    merge.add_argument("target", type=Path)
    merge.add_argument("--lora", type=Path, action="append", required=True, help="may be given several times")
    merge.add_argument("--multiplier", type=float, action="append", default=[], help="one for each --lora (1)")

    download = _add(commands, "download", "files:download", "fetch model files from the Hub", project)
    download.add_argument("files", type=Path, nargs="*", help="the files to fetch (all that the config needs)")

    demo = commands.add_parser("demo", help="bring the parts of the demo into the project")
    parts = demo.add_subparsers(metavar="PART", required=True)
    _add(parts, "models", "files:demo_models", "its toy models, in the official file layouts", project)
    _add(parts, "clips", "files:demo_clips", "its captioned clips", project)
    pretrain = _add(parts, "pretrain", "pretraining:pretrain", "train the demo's base from nothing, one stage a call")
    pretrain.add_argument("stage", choices=("basis", "encoder", "decoder", "transformer", "again", "base"))
    pretrain.add_argument("--work", type=Path, default=Path("demo/pretraining"), help="of all intermediate results")
    pretrain.add_argument("--out", type=Path, default=Path("demo/base"), help="of the finished models (stage base)")
    pretrain.add_argument("--threads", type=int, default=1, help="of torch; more change the last bits (1)")


def _add(commands: Any, name: str, run: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, parents=list(parents))
    parser.set_defaults(run=run)
    return parser


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("expected a JSON object")
    return value


if __name__ == "__main__":
    sys.exit(main())
