"""The commands of `hv15` with their arguments, as frozen dataclasses; hv15.commands holds what they do."""

from __future__ import annotations

from hv15.arguments import Entry
from hv15.commands.options.files import FILE_COMMANDS
from hv15.commands.options.lora import LORA_COMMANDS
from hv15.commands.options.machine import MACHINE_COMMANDS
from hv15.commands.options.project import PROJECT_COMMANDS
from hv15.commands.options.queue import QUEUE_COMMANDS
from hv15.commands.options.runs import RUN_COMMANDS
from hv15.commands.options.stages import STAGE_COMMANDS

COMMANDS: tuple[Entry, ...] = (
    *PROJECT_COMMANDS,
    *RUN_COMMANDS,
    *QUEUE_COMMANDS,
    *STAGE_COMMANDS,
    *FILE_COMMANDS,
    *LORA_COMMANDS,
    *MACHINE_COMMANDS,
)
"""In the order of the help."""
