"""The processor as the device under test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hv15.selftest.planned import PlannedCosts
from hv15.selftest.sizes import TINY
from hv15.selftest.stand import Stand


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(torch.device("cpu"), TINY, tmp_path, plans=PlannedCosts())
