"""The stages in which the demo's base is made; each writes a file that later stages need.

basis -> encoder, decoder, transformer (and `again`, its second cycle), which can run in parallel. For super resolution:
decoder -> detail -> upsampler -> enlarger -> unrolled -> refined. Then `base` writes the results in the file layouts of
the real models.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file

from demo_base.basis import CellBasis, make_basis
from demo_base.clips import LOOKS, encode, training_clips, training_items
from demo_base.detail import Detail, make_detail
from demo_base.dit import STAGES as DIT_STAGES
from demo_base.dit import train_dit
from demo_base.enlarger import GAIN, Enlarger, Lessons, begun, train_enlarger, write_enlarger
from demo_base.enlarger import STAGES as ENLARGING_STAGES
from demo_base.pairs import Pairs, draw_pairs
from demo_base.upsampler import CLIPS, new_upsampler
from demo_base.vae import SIZES, STAGES, train_vae_stage
from hv15.atomic import atomic_path
from hv15.demo.models import write_encoders
from hv15.digest import digest, file_sha256
from hv15.models.dit_files import load_dit, save_dit
from hv15.models.text import load_text_encoder
from hv15.models.upsampler_files import load_upsampler
from hv15.models.vae import VAE, save_vae
from hv15.models.vision import load_image_encoder

Stage = Literal[
    "basis",
    "encoder",
    "decoder",
    "transformer",
    "again",
    "detail",
    "upsampler",
    "enlarger",
    "unrolled",
    "refined",
    "base",
]
SEED = 0
BASE_WEIGHTS = "again.safetensors"
"""Those of the base's transformer."""
BEFORE = {"unrolled": "enlarger", "refined": "unrolled"}
"""The cycle of super resolution whose networks another goes on with."""
DETAIL_SEED = 7
"""Of clips that the pairs do not show."""


def run_stage(stage: Stage, work: Path, output: Path) -> None:
    """Run one stage, or resume it if it was stopped; the stages before it must be finished.

    Args:
        work: folder of all intermediate results, one `<stage>.safetensors` each.
        output: folder of the finished models, for the stage `base`.

    Raises:
        UserError: a folder cannot be written, or another process runs the same stage.
        SystemExit: code 3 after SIGTERM or Ctrl-C, with the state saved.
    """
    basis = work / "basis.safetensors"
    if stage == "basis":
        make_basis(SEED).save(basis)
    elif stage == "base":
        write_base(work, output)
    elif stage in ("transformer", "again"):
        _train_transformer(stage, work, basis)
    elif stage == "detail":
        make_detail(CellBasis.load(basis), work / "decoder.safetensors", DETAIL_SEED).save(work / "detail.safetensors")
    elif stage == "upsampler":
        _fit_upsampler(work)
    elif stage in ENLARGING_STAGES:
        _train_enlarger(stage, work)
    else:
        train_vae_stage(STAGES[stage], CellBasis.load(basis), work, seed=SEED)


def _train_transformer(name: str, work: Path, basis: Path) -> None:
    write_encoders(work / "encoders", SEED)
    clips = training_clips()
    source = digest({"basis": file_sha256(basis), "looks": LOOKS})
    stores = encode(clips, CellBasis.load(basis), work / "encoders", work, source)
    stage, start = DIT_STAGES[name], work / "transformer.safetensors" if name == "again" else None
    train_dit(stage, training_items(clips, stage.batch), stores, work, settings=source, start=start)


def _pairs(work: Path, count: int, seed: int) -> Pairs:
    """Draw what the two models of super resolution learn from."""
    basis, detail = CellBasis.load(work / "basis.safetensors"), Detail.load(work / "detail.safetensors")
    return draw_pairs(count, basis, seed, detail.added)


def _fit_upsampler(work: Path) -> None:
    upsampler = new_upsampler(_pairs(work, CLIPS, SEED), SEED)
    with atomic_path(work / "upsampler.safetensors") as temporary:
        save_file(upsampler.state_dict(), temporary)


def _source(work: Path) -> str:
    """A digest of what the pairs depend on."""
    return digest({name: file_sha256(work / f"{name}.safetensors") for name in ("basis", "detail")})


def _train_enlarger(name: str, work: Path) -> None:
    stage, folder = ENLARGING_STAGES[name], work / f"{name}.encoders"
    write_encoders(folder, SEED)
    pairs = _pairs(work, stage.clips, stage.seed)
    captions = sorted({"", *pairs.captions})
    text = load_text_encoder(folder / "qwen.safetensors", folder / "tokenizer", dtype=torch.float32)
    vision = load_image_encoder(folder / "siglip.safetensors", dtype=torch.float32)
    states = dict(zip(captions, text.encode(captions, batch_size=64), strict=True))
    visions = torch.cat([vision.encode(pairs.images[start : start + 64]) for start in range(0, len(pairs), 64)])
    if name == "enlarger":
        before = [work / BASE_WEIGHTS, work / "upsampler.safetensors"]
        networks = Enlarger(begun(load_dit(before[0], dtype=torch.float32)), load_upsampler(before[1]))
        networks.amplify(GAIN)
    else:
        before = [work / f"{BEFORE[name]}.safetensors"]
        networks = Enlarger.load(before[0])
    source = digest({"pairs": _source(work), "before": [file_sha256(path) for path in before]})
    metric = CellBasis.load(work / "basis.safetensors").metric()
    train_enlarger(stage, networks, Lessons(pairs, states, visions, metric), work, settings=source)


def write_base(work: Path, output: Path) -> None:
    """Write all models of the finished base, in the official layouts and in half precision.

    Raises:
        UserError: a file is missing, or the folder cannot be written.
    """
    vae = VAE(SIZES)
    vae.encoder.load_state_dict(load_file(work / "encoder.safetensors"))
    vae.decoder.load_state_dict(load_file(work / "decoder.safetensors"))
    save_vae(vae, output / "vae.safetensors", dtype=torch.float16)
    dit = load_dit(work / BASE_WEIGHTS, dtype=torch.float32)
    training = json.dumps([asdict(stage) for stage in DIT_STAGES.values()])
    save_dit(dit, output / "dit.safetensors", dtype=torch.bfloat16, metadata={"training": training})
    write_enlarger(work / "refined.safetensors", output)
    write_encoders(output, SEED)
