from __future__ import annotations

from tests.commands.conftest import charts, finished, fresh  # noqa: F401  (fixtures)
from tests.workflow.conftest import demo_clips, demo_models  # noqa: F401  (fixtures)
