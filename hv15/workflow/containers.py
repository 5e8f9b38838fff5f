"""Jobs in a container: the image that `runtime.container` names, for `snakemake --sdm apptainer`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.errors import UserError
from hv15.remote_paths import is_remote
from hv15.runs.job_shell import SCRIPT

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakemake.io import Wildcards
    from snakemake.workflow import Workflow

    from hv15.config import Settings

BUILD = (
    "build it in a clone: docker build --build-arg COMMIT=$(git rev-parse HEAD) -t hv15 . "
    "&& apptainer build hv15.sif docker-daemon://hv15:latest"
)


def use_container(workflow: Workflow, settings: Settings) -> Callable[[Wildcards], str] | None:
    """Return what the Snakefile's `container:` is: the image of all jobs; None if they run without one.

    The options of apptainer that they need are added to those of the command line: the shell of the jobs is a file of
    this hv15, and GPUs are seen in a container only if asked for.

    Raises:
        UserError: containers are asked for, and there is no image.
    """
    from snakemake.settings.types import DeploymentMethod

    deployment = workflow.deployment_settings
    if deployment is None or DeploymentMethod.APPTAINER not in deployment.deployment_method:
        return None
    name = settings.runtime.container
    if name is None:
        raise UserError("--sdm apptainer: runtime.container names no image", hint=f"set it, e.g. to hv15.sif; {BUILD}")
    is_file = "://" not in name or is_remote(name)
    image = str(settings.resolve(name)) if is_remote(name) else str(Path(name).expanduser()) if is_file else name
    if workflow.is_main_process:  # those that it starts for single jobs are told the options
        if is_file and not (file := settings.resolve(name)).exists():
            raise UserError(f"runtime.container: there is no file {file}", hint=BUILD)
        needed = ["--bind", f"{SCRIPT}:{SCRIPT}:ro", *(["--nv"] if settings.runtime.device != "cpu" else [])]
        deployment.apptainer_args = f"{deployment.apptainer_args} {shlex.join(needed)}".strip()
    return lambda wildcards: image
