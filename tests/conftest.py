from __future__ import annotations

import pytest
import torch
from hypothesis import settings

# Fuzz tests try the same examples each time, and a busy machine fails none of them.
settings.register_profile("hv15", derandomize=True, deadline=None)
settings.load_profile("hv15")

# The models of the tests are tiny: a second thread costs them more than it gives, and results stay the same anywhere.
torch.set_num_threads(1)

LONGEST = ("test_incremental.py", "test_behaviour.py")
"""Files of several minutes: begun first, they do not keep one worker busy when all others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)
