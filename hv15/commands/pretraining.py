"""`hv15 demo pretrain`: how the demo's base was made, stage by stage."""

from __future__ import annotations

from hv15.commands.logs import log_to_stderr
from hv15.commands.options.files import DemoPretrain


def pretrain(options: DemoPretrain) -> None:
    """Do one stage of the base's training."""
    import torch

    from hv15.demo.pretrain.stages import run_stage

    log_to_stderr("info")
    torch.set_num_threads(options.threads)
    run_stage(options.stage, options.work, options.out)
