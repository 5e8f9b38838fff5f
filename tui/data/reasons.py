"""Why Snakemake runs a job, in plain words, for jobs whose reason hv15 does not give."""

from __future__ import annotations

import re

MOST_NAMED = 3
_HEADS = (
    "Missing output|Incomplete output|Updated input|Input files updated|Output file is|Job provides|Set of input"
    "|Code has|Params have|Software environment|Forced execution|Rules with"
)


def plain_reason(reason: str) -> str:
    """Turn a reason as Snakemake writes it into a sentence; an unknown one is left as it is."""
    parts = []
    for part in _parts(reason):
        kind, _, files = part.partition(": ")
        match kind:
            case "Missing output files":
                parts.append(f"{_names(files)} {_verb(files)} not there yet")
            case "Incomplete output files":
                parts.append(f"{_names(files)} {_verb(files)} incomplete: the last run was cut short")
            case "Updated input files":
                parts.append(f"{_names(files)} {'is' if _one(files) else 'are'} newer than the result")
            case "Input files updated by another job":
                parts.append(f"{_names(files)} will be made again")
            case "Params have changed since last execution":
                parts.append("its settings changed")
            case "Code has changed since last execution":
                parts.append("the rule's command changed")
            case "Set of input files has changed since last execution":
                parts.append("it reads other files than last time")
            case "Software environment definition has changed since last execution":
                parts.append("its software environment changed")
            case "Forced execution":
                parts.append("asked for by force")
            case _ if kind.startswith("Rules with"):
                parts.append("it runs each time")
            case _:
                parts.append(part)
    return "; ".join(parts)


def _parts(reason: str) -> list[str]:
    """Split before each new reason: parameters and file names may hold semicolons too."""
    reason = re.sub(r"^Finished \(was: (.*)\)$", r"\1", reason.strip(), flags=re.DOTALL)
    return [part.strip() for part in re.split(rf"; (?={_HEADS})", reason) if part.strip()]


def _files(text: str) -> list[str]:
    return sorted(file.strip() for file in text.split(", ") if file.strip())


def _one(text: str) -> bool:
    return len(_files(text)) == 1


def _verb(text: str) -> str:
    return "is" if _one(text) else "are"


def _names(text: str) -> str:
    files = _files(text)
    if not files:
        return "an input"
    more = f" and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else ""
    return ", ".join(files[:MOST_NAMED]) + more
