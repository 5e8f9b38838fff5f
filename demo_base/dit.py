"""Trains the demo's transformer from scratch with the trainer for LoRAs, which gets all weights instead of a LoRA's.

As in the real model's training, text-to-video and image-to-video are mixed and captions are sometimes dropped.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from hv15.cache.batches import BatchStream, Stores, TrainingItem
from hv15.config import TrainSettings
from hv15.demo.models import DIT
from hv15.digest import file_sha256
from hv15.models.dit import DiT
from hv15.models.dit_config import DiTConfig
from hv15.models.dit_files import save_dit
from hv15.records.paths import ProjectPaths
from hv15.records.training import TrainingRecord
from hv15.train.checkpoints import CheckpointRule, Checkpoints
from hv15.train.examples import ExampleReader
from hv15.train.folder import claim_folder
from hv15.train.loop import LoopSettings, Trainer
from hv15.train.losses import LossFunction
from hv15.train.optimizer_step import OptimizerStep
from hv15.train.random import seed_for
from hv15.train.schedules import Schedule
from hv15.train.state import locked
from hv15.train.step_batches import StepBatches
from hv15.train.timesteps import SigmaRule
from hv15.train.weighting import LossWeight

log = logging.getLogger(__name__)

SIZES = DiTConfig(
    hidden_size=128,
    num_heads=4,
    num_blocks=6,
    mlp_ratio=2.5,
    refiner_mlp_ratio=2.5,
    rope_dims=(4, 14, 14),
    text_dim=DIT.text_dim,
    glyph_dim=DIT.glyph_dim,
    glyph_hidden=64,
    vision_dim=DIT.vision_dim,
)


@dataclass(frozen=True)
class DitStage:
    """The settings of one cycle of the transformer's training."""

    name: str = "transformer"
    seed: int = 0
    """Seed of all random draws."""
    steps: int = 3000
    batch: int = 32
    rate: float = 1e-3
    """Peak learning rate: linear warm-up over `warmup` steps, then a cosine to zero."""
    warmup: int = 150
    i2v_prob: float = 0.4
    caption_dropout: float = 0.1
    shift: float = 2.0
    """Shift of the logit-normal distribution of sigma."""
    save_every: int = 500


STAGES = {
    "transformer": DitStage(),
    "again": DitStage("again", seed=1, steps=800, rate=6e-4, warmup=40, shift=1.5),
}
"""The second continues from the first with less noise, because shapes are learnt last."""


class WholeNetwork:
    """All weights of the transformer, in place of a LoRA."""

    def __init__(self, dit: DiT) -> None:
        self._dit = dit

    def set_step_seed(self, seed: int) -> None:
        """Do nothing: there is no dropout."""

    def switched_off(self, dit: DiT) -> NoReturn:
        """Refuse it: without all of its weights, nothing is left of the transformer."""
        raise ValueError("the whole transformer is trained, so there is none without it")

    def state_dict(self) -> dict[str, Tensor]:
        return self._dit.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._dit.load_state_dict(state)


def new_dit(seed: int) -> DiT:
    """Return an untrained transformer with torch's initialisation, except that its blocks add 0 and it returns 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "dit", 0))
        dit = DiT(SIZES)
    nn.init.normal_(dit.cond_type_embedding.weight, std=0.02, generator=torch.Generator().manual_seed(seed))
    for name, parameter in dit.named_parameters():
        if "_mod.linear." in name or "adaLN_modulation." in name or name.startswith("final_layer.linear."):
            nn.init.zeros_(parameter)
    return dit


def train_dit(
    stage: DitStage,
    items: list[TrainingItem],
    stores: Stores,
    folder: Path,
    *,
    settings: str,
    start: Path | None = None,
) -> Path:
    """Train, or resume a stopped training; return the path of the weights, `<folder>/<stage>.safetensors`, fp32.

    Args:
        settings: digest of what the items depend on.
        start: initial weights; None starts from scratch.

    Raises:
        UserError: as `hv15.train.loop.Trainer.resume`.
        SystemExit: code 3 after SIGTERM or Ctrl-C, with the state saved.
    """
    target, work, seed = folder / f"{stage.name}.safetensors", folder / stage.name, stage.seed
    options = TrainSettings(timestep_sampling="logit_normal", discrete_flow_shift=stage.shift)  # as officially
    dit = new_dit(seed)
    begun = {} if start is None else {"start": file_sha256(start)}
    if start is not None:
        dit.load_state_dict(load_file(start))
    record = TrainingRecord({"stage": asdict(stage), "sizes": asdict(SIZES), "items": settings, **begun}, {})
    batches = StepBatches(BatchStream(items, seed), accumulation=1)
    copies = CheckpointRule(
        save_every_n_epochs=None, save_every_n_steps=stage.save_every, save_last_n_epochs=None, save_last_n_steps=None
    )

    def save(path: Path, step: int) -> list[Path]:
        save_dit(dit, path, metadata={"step": str(step)})
        return [path]

    trainer = Trainer(
        settings=LoopSettings(
            total_steps=stage.steps,
            schedule=Schedule("cosine", stage.steps, stage.warmup),
            state_every_n_steps=100,
            max_bad_steps=1,
        ),
        optimizer_step=OptimizerStep(
            dit=dit,
            network=WholeNetwork(dit),
            optimizer=torch.optim.AdamW(
                [{"params": list(dit.parameters()), "lr": stage.rate, "initial_lr": stage.rate}],
                betas=(0.9, 0.99),
                fused=True,
            ),
            device=torch.device("cpu"),
            seed=seed,
            max_grad_norm=1.0,
            loss=LossFunction(options),
        ),
        batches=batches,
        reader=ExampleReader(
            stores,
            seed,
            SigmaRule(options),
            LossWeight.from_settings(options),
            i2v_prob=stage.i2v_prob,
            caption_dropout=stage.caption_dropout,
        ),
        accelerator=Accelerator(cpu=True, mixed_precision="no"),
        folder=work,
        spec=record.digest,
        between=[Checkpoints(copies, batches, work / ProjectPaths().checkpoints.name, save)],
    )
    with locked(work):
        claim_folder(work, record, stage.steps)
        trainer.resume()
        save_dit(dit, target)
    return target
