"""The stages in which the demo's base was made, each a file that the next ones begin from.

images -> clips -> decoder, and clips -> transformer: the clips stage settles the latents, so that the last two can run
side by side. `base` puts the results into the file layouts of the real models.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from safetensors.torch import load_file

from hv15.demo.models import write_encoders
from hv15.demo.pretrain.clips import LOOKS, encode, training_clips, training_items
from hv15.demo.pretrain.dit import STAGE, train_dit
from hv15.demo.pretrain.vae import STAGES, new_vae, train_vae_stage
from hv15.digest import digest, file_sha256
from hv15.models.dit_files import load_dit, save_dit
from hv15.models.vae import VAE, save_vae

Stage = Literal["images", "clips", "decoder", "transformer", "base"]
SEED = 0


def result_of(stage: Stage, work: Path) -> Path:
    """Return the weights that a stage leaves in the working folder."""
    return work / f"{stage}.safetensors"


def run_stage(stage: Stage, work: Path, output: Path) -> None:
    """Do one stage, or go on where it was stopped; the stages before it must be finished.

    Args:
        work: folder of all intermediate results.
        output: folder of the finished models, for the stage `base`.

    Raises:
        UserError: a stage before it is not finished, or the folder cannot be written.
        SystemExit: code 3 after SIGTERM or Ctrl-C, with the state saved.
    """
    if stage == "transformer":
        _train_transformer(work)
    elif stage == "base":
        write_base(work, output)
    else:
        number = [one.name for one in STAGES].index(stage)
        start = result_of("images" if stage == "clips" else "clips", work) if number else None
        train_vae_stage(STAGES[number], work, start=start, seed=SEED)


def _train_transformer(work: Path) -> None:
    write_encoders(work / "encoders", SEED)
    clips = training_clips()
    source = digest({"vae": file_sha256(result_of("clips", work)), "looks": LOOKS})
    stores = encode(clips, _vae(result_of("clips", work)), work / "encoders", work, source)
    train_dit(STAGE, training_items(clips, STAGE.batch), stores, work, settings=source, seed=SEED)


def _vae(path: Path) -> VAE:
    """Return a VAE with the weights as they will be stored, rounded to half precision."""
    vae = new_vae(SEED)
    vae.load_state_dict(load_file(path))
    return vae.half().float().requires_grad_(False)


def write_base(work: Path, output: Path) -> None:
    """Write all models of the finished base, in the official layouts and in half precision."""
    import torch

    vae = _vae(result_of("decoder", work))  # its encoder is that of the clips stage
    save_vae(vae, output / "vae.safetensors", dtype=torch.float16)
    dit = load_dit(result_of("transformer", work), dtype=torch.float32)
    save_dit(dit, output / "dit.safetensors", dtype=torch.bfloat16, metadata={"training": str(asdict(STAGE))})
    write_encoders(output, SEED)
