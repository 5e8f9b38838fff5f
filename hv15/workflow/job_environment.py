"""Environment variables by which the workflow's jobs find this hv15."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.environment import SOURCE_VARIABLE
from hv15.errors import UserError
from hv15.home import clone

if TYPE_CHECKING:
    from snakemake.workflow import Workflow


def name_source(workflow: Workflow) -> None:
    """Set the variable that tells rules/environment.yaml which clone to install hv15 from.

    Raises:
        UserError: conda environments are asked for, and there is no clone.
    """
    from snakemake.settings.types import DeploymentMethod

    source, deployment = clone(), workflow.deployment_settings
    if source is not None:
        os.environ[SOURCE_VARIABLE] = str(source)
    elif deployment is not None and DeploymentMethod.CONDA in deployment.deployment_method:
        raise UserError(
            "--sdm conda: the rules' environment is built from a clone of hv15, and this hv15 is an installed wheel",
            hint="leave --sdm conda out, then the jobs use the hv15 that is installed; or run snakemake in a clone",
        )


def find_command() -> None:
    """Let the jobs find this `hv15` when snakemake was called by its path: PATH may have none, or another one."""
    found, own, path = shutil.which("hv15"), Path(sys.executable).parent, os.environ.get("PATH", os.defpath)
    if found is None:
        os.environ["PATH"] = f"{path}{os.pathsep}{own}"
    elif (folder := Path(found).resolve().parent) != own.resolve() and (folder / "python").exists():
        os.environ["PATH"] = f"{own}{os.pathsep}{path}"
