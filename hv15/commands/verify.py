"""`hv15 verify`: what another program would do with a LoRA file."""

from __future__ import annotations

from hv15.commands.options.lora import Verify
from hv15.lora.programs.verify import Verification
from hv15.lora.programs.verify import verify as verify_file
from hv15.terminal_text import one_line

_EXAMPLES = 3


def verify(options: Verify) -> int:
    """Print what a program would do with a file, and return 1 if anything would be lost or wrong.

    Raises:
        UserError: the file cannot be read.
    """
    found = verify_file(options.file, options.program)
    for line in _each(found) if options.keys else _summary(found):
        print(one_line(line))
    counts = ", ".join(f"{count} {outcome}" for outcome, count in found.counts().items())
    print(one_line(f"{options.file} for {options.program}: {counts} of {len(found.verdicts)} tensors"))
    if (advice := found.advice()) is not None:
        print(one_line(f"what to do: {advice}"))
    return 0 if found.is_right else 1


def _each(found: Verification) -> list[str]:
    width = max(map(len, found.verdicts))
    return [f"{verdict.outcome:<7}  {key:<{width}}  {verdict.why}".rstrip() for key, verdict in found.verdicts.items()]


def _summary(found: Verification) -> list[str]:
    lines = []
    for verdict, keys in found.by_verdict().items():
        named = ", ".join(keys[:_EXAMPLES]) + (", ..." if len(keys) > _EXAMPLES else "")
        why = f": {verdict.why}" if verdict.why else ""
        lines.append(f"{verdict.outcome:<7}  {len(keys)} tensors{why} ({named})")
    return lines
