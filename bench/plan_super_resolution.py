"""On which GPUs super resolution fits, with which settings, and how long it takes: as `hv15 plan` says it.

Of one video of 121 frames in bfloat16, for both resolutions: a project with the published models, of which no file is
there, is planned for each GPU. Nothing is loaded and nothing is downloaded. It takes about a minute.

python bench/plan_super_resolution.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hv15.out_of_memory import StageName
from hv15.plan.advice import advise
from hv15.plan.devices import device_of_size, find_device
from hv15.plan.stage_plan import StagePlan
from hv15.plan.stages import StagePlanner
from hv15.project import Project
from hv15.units import GIB

SMALLEST = "8GiB"
"""Of any GPU, without times."""
GPUS = ("rtx 4070", "4080", "4090", "5090", "l40s", "a100-80gb", "h100")
VIDEOS = {"480p_t2v": (480, 848), "720p_t2v": (720, 1280)}
"""Checkpoint of the small video -> its height and width."""
STAGES: tuple[StageName, ...] = ("upsample", "decode large")


def project(folder: Path, variant: str) -> Project:
    config = folder / f"{variant}.yaml"
    prompt = {"name": "one", "prompt": "a prompt"}
    size = list(VIDEOS[variant])
    config.write_text(
        f"models: {{source: hub, variant: {variant}}}\nsample: {{sr: auto, video_size: {size}, prompts: [{prompt}]}}\n"
    )
    return Project(config)


def planned(planner: StagePlanner, name: StageName) -> tuple[str, StagePlan | None]:
    """The settings with which a stage fits, in words, and its plan with them; None if nothing helps."""
    remedy = advise(planner, name)
    if remedy is None:
        return "by default", planner.stage(name)
    words = ", ".join(f"`{key.partition('.')[2]}: {str(value).lower()}`" for key, value in remedy.changes.items())
    return words, remedy.planned


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for variant, (height, width) in VIDEOS.items():
            opened = project(Path(folder), variant)
            (large,) = StagePlanner(opened, find_device("h100")).work.enlarged
            print(f"\n{width} x {height} to {large.width} x {large.height}, {large.frames} frames, {large.steps} steps")
            print("| GPU | super resolution | GiB | minutes, all steps | decoding | GiB |\n|---|---|---|---|---|---|")
            for device in (device_of_size(SMALLEST), *map(find_device, GPUS)):
                planner = StagePlanner(opened, device)
                (steps, upsample), (tiles, decode) = (planned(planner, stage) for stage in STAGES)
                if upsample is None or decode is None:
                    print(f"| {device.name} | does not fit | | | | |")
                    continue
                times, count = upsample.each, upsample.count
                minutes = f"{times.least * count / 60:.0f} to {times.most * count / 60:.0f}" if times else ""
                print(
                    f"| {device.name}, {device.memory / GIB:.0f} GiB | {steps} | {upsample.needed / GIB:.1f} | "
                    f"{minutes} | {tiles} | {decode.needed / GIB:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
