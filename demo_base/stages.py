"""The stages in which the demo's base is made; each writes a file that later stages need.

basis -> encoder, decoder, transformer (and `again`, its second cycle), which can run in parallel; then `base` writes
the results in the file layouts of the real models.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file

from demo_base.basis import CellBasis, make_basis
from demo_base.clips import LOOKS, encode, training_clips, training_items
from demo_base.dit import STAGES as DIT_STAGES
from demo_base.dit import train_dit
from demo_base.vae import SIZES, STAGES, train_vae_stage
from hv15.demo.models import write_encoders
from hv15.digest import digest, file_sha256
from hv15.models.dit_files import load_dit, save_dit
from hv15.models.vae import VAE, save_vae

Stage = Literal["basis", "encoder", "decoder", "transformer", "again", "base"]
SEED = 0


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
    else:
        train_vae_stage(STAGES[stage], CellBasis.load(basis), work, seed=SEED)


def _train_transformer(name: str, work: Path, basis: Path) -> None:
    write_encoders(work / "encoders", SEED)
    clips = training_clips()
    source = digest({"basis": file_sha256(basis), "looks": LOOKS})
    stores = encode(clips, CellBasis.load(basis), work / "encoders", work, source)
    stage, start = DIT_STAGES[name], work / "transformer.safetensors" if name == "again" else None
    train_dit(stage, training_items(clips, stage.batch), stores, work, settings=source, start=start)


def write_base(work: Path, output: Path) -> None:
    """Write all models of the finished base, in the official layouts and in half precision.

    Raises:
        UserError: a file is missing, or the folder cannot be written.
    """
    vae = VAE(SIZES)
    vae.encoder.load_state_dict(load_file(work / "encoder.safetensors"))
    vae.decoder.load_state_dict(load_file(work / "decoder.safetensors"))
    save_vae(vae, output / "vae.safetensors", dtype=torch.float16)
    dit = load_dit(work / "again.safetensors", dtype=torch.float32)
    training = json.dumps([asdict(stage) for stage in DIT_STAGES.values()])
    save_dit(dit, output / "dit.safetensors", dtype=torch.bfloat16, metadata={"training": training})
    write_encoders(output, SEED)
