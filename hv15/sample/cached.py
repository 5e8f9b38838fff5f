"""A transformer that reuses a part of earlier steps, as a sample's spec asks (`hv15.models.step_cache`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from hv15.errors import UserError
from hv15.models import Condition, PreparedCondition
from hv15.models.step_cache import AdaptiveCache, DeepCache, StepCache, TaylorCache, whole_steps
from hv15.sample.prompts import StepCaching

if TYPE_CHECKING:
    from hv15.models import DiT

_LEAST = {"deepcache": 1, "teacache": 1, "taylorcache": 3}
"""First steps without which a rule has nothing to reuse: after them, taylorcache has all of its terms."""


class Cached:
    """Called like the transformer, in the steps of one sample, one after the other; see `step`.

    Args:
        dit: set up, with its LoRAs.
        steps: of the sample.

    Raises:
        UserError: the checkpoint is step-distilled, where each step counts.
    """

    def __init__(self, dit: DiT, caching: StepCaching, steps: int) -> None:
        if dit.config.meanflow:
            raise UserError(
                f"sample.step_cache: {caching.rule} with a step-distilled checkpoint, whose few steps are all needed",
                hint="set sample.step_cache.rule to none",
            )
        self.config = dit.config
        self._dit, self._caching, self._steps = dit, caching, steps
        self.step = 0
        """The number of the current step."""
        self.caches: dict[int, StepCache] = {}
        """That of each branch of guidance, by the identity of its condition."""

    def forget(self) -> None:
        """Reuse nothing of the steps so far: the transformer was changed."""
        self.caches.clear()

    def prepare(self, cond: Condition) -> PreparedCondition:
        """Return the result of `DiT.prepare`."""
        return self._dit.prepare(cond)

    def __call__(
        self, x: Tensor, timestep: Tensor, cond: Condition | PreparedCondition, timestep_r: Tensor | None = None
    ) -> Tensor:
        """Return the velocity [B, C, F, H, W]; the arguments are those of `DiT.forward`."""
        cache = self.caches.get(id(cond))
        if cache is None:
            cache = self.caches[id(cond)] = make_cache(self._caching, self._steps)
        cache.step = self.step
        self._dit.step_cache = cache
        try:
            return self._dit(x, timestep, cond, timestep_r)
        finally:
            self._dit.step_cache = None


def make_cache(caching: StepCaching, steps: int) -> StepCache:
    """Return an empty cache for one branch of a sample of so many steps."""
    if caching.rule == "adaptive":
        return AdaptiveCache(caching.threshold, steps)
    whole = whole_steps(
        steps, start=caching.start, end=caching.end, interval=caching.interval, least=_LEAST[caching.rule]
    )
    if caching.rule == "deepcache":
        return DeepCache(whole)
    return TaylorCache(whole, order=0 if caching.rule == "teacache" else 2)
