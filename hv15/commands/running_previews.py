"""What `hv15 sample` and the sampling jobs need to show samples while they are denoised."""

from __future__ import annotations

import logging

from hv15.digest import short
from hv15.errors import UserError
from hv15.project import Project
from hv15.ranks import is_first_rank
from hv15.records.cache_paths import CachePaths
from hv15.sample.latent_colors import LatentColors, fit_colors, read_colors, write_colors
from hv15.sample.running import RunningPreviews, Shown

log = logging.getLogger(__name__)


def running_previews(project: Project, shown: Shown | None = None) -> RunningPreviews:
    """Return the previews that the project asks for. Call it before the transformer is loaded, as it may load the VAE.

    Each is written beside the sample's results, and given to `shown`.

    A problem is logged, and there are no previews then: it must not end a sample.
    """
    every = project.settings.sample.preview_every_n_steps
    if not every or not is_first_rank():
        return RunningPreviews(None)
    try:
        return RunningPreviews(_colors(project), every, shown)
    except UserError as error:
        log.warning("no previews of running samples: %s", error)
        return RunningPreviews(None)


def _colors(project: Project) -> LatentColors:
    """Return the map of the project's VAE, which is fitted once.

    Raises:
        UserError: the VAE cannot be loaded, or the map cannot be written.
    """
    import torch

    from hv15.models import load_vae
    from hv15.precision import pick_device, pick_encoder_dtype

    identity = project.models.identity("vae")
    file = CachePaths(project.cache).latent_colors(short(identity))
    if (known := read_colors(file, identity)) is not None:
        return known
    device = pick_device(project.settings.runtime.device)
    dtype = pick_encoder_dtype(project.settings.sample.dtype_of_vae, device)
    colors, explained = fit_colors(load_vae(project.models.path("vae"), dtype=dtype, device=device))
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the transformer needs all of it
    log.info("previews: a linear map of the latents, which explains %.0f %% of the colors", 100 * explained)
    write_colors(file, colors, identity, explained)
    return colors
