"""Divides the transformer's frozen blocks among the GPUs of a training (PyTorch's FSDP2).

Each rank keeps a share of every block. Before a block computes, in the forward pass and again in the backward pass, its
weights are gathered from all ranks, and freed afterwards. The arithmetic does not change.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from hv15.models.dit import DiT


def shard_blocks(dit: DiT, device: torch.device | str) -> None:
    """Divide the blocks among all ranks and move them to the device; they stay divided.

    All ranks must call it, and must run the same number of forward and backward passes. Blocks may be in CPU memory: no
    rank ever has all of them on its GPU. On the meta device nothing is done.
    """
    device = torch.device(device)
    if device.type == "meta":
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in dit.double_blocks:
        fully_shard(block, mesh=mesh)
