"""What the demo's super resolution gains over bilinear enlargement: test_super_resolution.py with more clips.

python bench/bench_enlarging.py [--clips 48] [--base FOLDER] [--picture FILE.png]

Clips that are drawn at both sizes, so that the large one is known; clips of a motion that no model has seen;
image-to-video; samples of the demo's base. `--picture` draws some of them: small, bilinear, super resolution, truth.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from PIL import Image

from demo_base.enlarging import EnlargedClip, ToyEnlarger, similarity
from demo_base.pairs import LARGE
from demo_base.trials import ToySampler, spread, unseen_concepts
from hv15.data.pixels import Pixels
from hv15.demo.layout import BASE
from hv15.demo.measure import psnr, sharpness
from hv15.demo.world import render, scenes
from hv15.models import load_dit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--clips", type=int, default=48)
parser.add_argument("--base", type=Path, default=BASE, help="another base, such as demo/base")
parser.add_argument("--picture", type=Path)
options = parser.parse_args()

ROWS, FRAME = 5, 6
"""Of the picture: how many clips, and which of their frames."""


def numbers(values: Sequence[float]) -> str:
    """Mean, and the range."""
    return f"{np.mean(values):8.3f} ({min(values):.3f} to {max(values):.3f})"


def say(name: str, clips: Sequence[EnlargedClip]) -> None:
    print(f"\n{name}: {len(clips)} clips")
    for kind in ("interpolated", "enlarged", "truth"):
        shown: list[Pixels] = [clip for each in clips if (clip := getattr(each, kind)) is not None]
        if not shown:
            continue
        edges = np.array([sharpness(clip) for clip in shown])
        line = f"  {kind:<14} sharpness {edges.mean():.3f}, first frame {edges[:, 0].mean():.3f}"
        if kind != "truth" and clips[0].truth is not None:
            truths = [each.truth for each in clips if each.truth is not None]
            pairs = list(zip(shown, truths, strict=True))
            line += f"; PSNR {np.mean([psnr(*pair) for pair in pairs]):.2f} dB"
            line += f", first frame {np.mean([psnr(one[0], two[0]) for one, two in pairs]):.2f} dB"
            line += f"; SSIM {np.mean([similarity(*pair) for pair in pairs]):.4f}"
        print(line)
    print("  sharper by    ", numbers([each.sharpening for each in clips]))
    if clips[0].truth is not None:
        print("  gain, dB      ", numbers([each.gain for each in clips]))
    print("  strays, pixels", numbers([each.strays for each in clips]))
    print("  colour, levels", numbers([each.colour_change for each in clips]))
    print(f"  colour and motion right {100 * np.mean([each.moves_right for each in clips]):.1f} %", flush=True)


def draw(clips: Sequence[EnlargedClip], path: Path) -> None:
    """Draw a frame of each clip at twice its size: small, enlarged bilinearly, by super resolution, truth."""
    rows = []
    for each in clips:
        assert each.truth is not None
        margin = (LARGE - each.small.shape[1]) // 2
        small = np.pad(each.small[FRAME], ((margin, margin), (margin, margin), (0, 0)), constant_values=255)
        cells = [small, *(clip[FRAME] for clip in (each.interpolated, each.enlarged, each.truth))]
        rows.append(np.concatenate([np.pad(cell, ((2, 2), (2, 2), (0, 0)), constant_values=255) for cell in cells], 1))
    image = Image.fromarray(np.concatenate(rows))
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).quantize(128).save(path, optimize=True)


def main() -> None:
    files = {role: options.base / Path(name).name for role, name in ToySampler.of(Path()).paths.items()}
    sampler = ToySampler(files)
    enlarger, chosen = ToyEnlarger(sampler), spread(scenes(), options.clips)
    drawn = enlarger.enlarge_drawn(chosen, look=7)
    say("drawn", drawn)
    if options.picture:
        draw(drawn[:: max(1, len(drawn) // ROWS)][:ROWS], options.picture)
    say("drawn, a motion that no model has seen", enlarger.enlarge_drawn(spread(unseen_concepts(), 24), look=7))
    with_images = [render(scene, 7, size=LARGE)[0] for scene in chosen[:24]]
    say("drawn, with the first frame", enlarger.enlarge_drawn(chosen[:24], look=7, images=with_images))
    base = load_dit(files["dit"], dtype=torch.float32)
    say("samples", enlarger.enlarge(sampler.latents(base, chosen), chosen))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
