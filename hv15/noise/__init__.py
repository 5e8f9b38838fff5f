"""Noise levels, sigma from 0 (data) to 1 (noise): their scale, and distributions of them. Does not need torch.

- levels: the model's timestep, and the shift
- distributions: what training draws from, each with its cumulative probability and its quantiles
- incomplete_beta: the cumulative probability of beta distributions
"""
