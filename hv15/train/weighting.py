"""Weights of samples in the loss, by sigma: what is minimised is the mean of weight times loss.

The model predicts the velocity noise - x0. At the same input, an error e of the velocity is an error sigma * e of the
clean latents and (1-sigma) * e of the noise, and the signal-to-noise ratio is SNR = ((1-sigma) / sigma)^2. That turns
weights from papers on other predictions into those of the velocity.
"""

from __future__ import annotations

from dataclasses import dataclass

from hv15.config.train import TrainSettings
from hv15.config.training.loss import WeightingScheme
from hv15.noise.distributions import LogitNormal, Mode, cosmap_density
from hv15.noise.levels import TIMESTEPS


@dataclass(frozen=True)
class LossWeight:
    """A weight for each sigma; its fields are the settings of `train:` of the same names."""

    weighting_scheme: WeightingScheme
    logit_mean: float
    logit_std: float
    mode_scale: float
    min_snr_gamma: float

    @classmethod
    def from_settings(cls, options: TrainSettings) -> LossWeight:
        """Make it from `train:`."""
        return cls(
            weighting_scheme=options.weighting_scheme,
            logit_mean=options.logit_mean,
            logit_std=options.logit_std,
            mode_scale=options.mode_scale,
            min_snr_gamma=options.min_snr_gamma,
        )

    def __call__(self, sigma: float) -> float:
        """Return the weight of a sample with this sigma.

        - logit_normal, mode, cosmap: densities. With all sigmas drawn equally, such a weight trains in the mean as
          drawing from the distribution does (Esser et al. 2024, section 3.1).
        - sigma_sqrt: 1 / sigma^2, as diffusers' trainers have it under this name; below the model's smallest timestep
          it stays as there.
        - min_snr: min(SNR, gamma) on errors of the clean latents (Hang et al. 2023, "Efficient Diffusion Training via
          Min-SNR Weighting Strategy"), which is min(SNR, gamma) * sigma^2 here.
        - debiased: 1 / sqrt(SNR) on errors of the noise (Yu et al. 2023, "Debias the Training of Diffusion Models"),
          which is (1-sigma)^2 / sqrt(SNR) = sigma * (1-sigma) here.
        """
        match self.weighting_scheme:
            case "none":
                return 1.0
            case "logit_normal":
                return LogitNormal(self.logit_mean, self.logit_std).density(sigma)
            case "mode":
                return Mode(self.mode_scale).density(sigma)
            case "cosmap":
                return cosmap_density(sigma)
            case "sigma_sqrt":
                return max(sigma, 1 / TIMESTEPS) ** -2
            case "min_snr":
                return min((1 - sigma) ** 2, self.min_snr_gamma * sigma**2)
            case "debiased":
                return sigma * (1 - sigma)
