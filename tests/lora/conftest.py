"""Tiny matrices: threads only get in each other's way. And one small transformer, ours and diffusers'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from hv15.models import DiT, load_dit, save_dit
from tests.models.copies import copied

if TYPE_CHECKING:
    from diffusers import HunyuanVideo15Transformer3DModel


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def dit_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One set of random weights for both models, in diffusers' layout."""
    from tests.lora.diffusers_model import SIZES

    torch.manual_seed(11)
    path = tmp_path_factory.mktemp("dit") / "diffusion_pytorch_model.safetensors"
    save_dit(DiT(SIZES), path, layout="diffusers")
    return path


@pytest.fixture(scope="session")
def loaded_dit(dit_path: Path) -> DiT:
    """Ours, of which each test gets a copy."""
    from tests.lora.diffusers_model import SIZES

    return load_dit(dit_path, config=SIZES)


@pytest.fixture
def small_dit(loaded_dit: DiT) -> DiT:
    """Ours."""
    return copied(loaded_dit)


@pytest.fixture
def peer(dit_path: Path) -> HunyuanVideo15Transformer3DModel:
    """Theirs."""
    from tests.lora.diffusers_model import load_peer

    return load_peer(dit_path)
