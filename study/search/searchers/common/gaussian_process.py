"""A Gaussian process for a few dozen results, averaged over its own settings.

Kernel: Matérn 5/2 with a length for each axis (Rasmussen & Williams 2006, equation 4.17), plus
noise and a constant. Two values of an unordered choice are at distance 1. With a dozen results the
most likely lengths and noise are often far off, so predictions are averaged over several, drawn by
Metropolis steps from their posterior (Snoek et al. 2012, arXiv 1206.2944, average so). The scale of
the results has an inverse-gamma prior and is integrated out (Rasmussen & Williams 2006, section
9.1), so that only lengths and noise are drawn.

It needs numpy alone: scikit-learn's, BoTorch's and Optuna's processes would have the process that
drives a study import scipy and torch, which takes seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LENGTH = 0.35
"""Typical length on one axis, as a share of the range; with more axes it grows with the root of
their number (Hvarfner et al. 2024, arXiv 2402.02229)."""
LENGTH_SPREAD = 0.8
"""Standard deviation of the logarithm of a length."""
NOISE, NOISE_SPREAD = 3e-3, 1.5
"""Typical variance of the noise, as a share of the results' own, and the standard deviation of its
logarithm."""
CONSTANT = 1.0
"""Variance of the constant, as a share of the results' own."""
SHAPE = 2.0
"""Shape and rate of the inverse-gamma prior on the results' variance."""
STARTS, CHAINS, STEPS, STRIDE = 32, 8, 8, 0.5
"""Number of settings drawn from the prior; of chains, which start at the most likely of them; of
Metropolis steps in a chain; size of a step as a share of the prior's standard deviation."""
JITTER = 1e-8
ROUNDING = 1e-5
"""Variance that is added to each result of a surface, so that its covariance is positive definite
after rounding too. Its root is 0.3% of the results' standard deviation, too little to matter."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """A Gaussian process that has seen results, for each of several settings."""

    rows: np.ndarray
    """Points that it has seen, [N, axes]."""
    results: np.ndarray
    """Results at ``rows``, of mean 0 and variance 1, [N]."""
    doubts: np.ndarray
    """Variances of results that are not known exactly, beside the noise of all, [N]."""
    unordered: np.ndarray
    """Whether an axis is unordered, [axes]."""
    settings: np.ndarray
    """Logarithms of lengths and noise, [settings, axes + 1]."""

    @classmethod
    def fit(
        cls,
        rows: np.ndarray,
        results: np.ndarray,
        doubts: np.ndarray,
        unordered: np.ndarray,
        chance: np.random.Generator,
    ) -> Process:
        """Draw settings from their posterior."""
        axes = rows.shape[1]
        middle = np.append(np.full(axes, math.log(LENGTH * math.sqrt(axes))), math.log(NOISE))
        wide = np.append(np.full(axes, LENGTH_SPREAD), NOISE_SPREAD)
        distances = _distances(rows, rows, unordered)

        def likely(settings: np.ndarray) -> np.ndarray:
            prior = -0.5 * (((settings - middle) / wide) ** 2).sum(axis=1)
            return np.asarray(prior + _evidence(distances, results, doubts, settings))

        starts = middle + wide * chance.standard_normal((STARTS, axes + 1))
        starts[0] = middle
        of_starts = likely(starts)
        best = np.argsort(-of_starts, kind="stable")[:CHAINS]
        chains, of_chains = starts[best], of_starts[best]
        for _ in range(STEPS):
            step = STRIDE * wide * chance.standard_normal(chains.shape)
            of_moved = likely(chains + step)
            accepted = np.log(chance.random(len(chains))) < of_moved - of_chains
            chains = np.where(accepted[:, None], chains + step, chains)
            of_chains = np.where(accepted, of_moved, of_chains)
        return cls(rows=rows, results=results, doubts=doubts, unordered=unordered, settings=chains)

    def predict(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the results without noise at points ``at`` [M, axes], by
        each setting: both [settings, M]."""
        across, weights, scale = self._conditioned(at)
        mean = weights @ self.results
        left = 1.0 + CONSTANT - (weights * across).sum(axis=2)
        return mean, np.sqrt(np.maximum(left, 1e-12) * scale[:, None])

    def surfaces(self, at: np.ndarray, draws: int, chance: np.random.Generator) -> np.ndarray:
        """Results without noise at points ``at`` [M, axes], drawn jointly ``draws`` times by each
        setting: [settings * draws, M]."""
        across, weights, scale = self._conditioned(at)
        mean = weights @ self.results
        prior = _kernel(_distances(at, at, self.unordered), self.settings) + CONSTANT
        left = prior - weights @ across.transpose(0, 2, 1)
        # What is drawn jointly is nearly determined by its neighbours: rounding may make it less.
        root = np.linalg.cholesky(left + ROUNDING * np.eye(len(at)))
        root = root * np.sqrt(scale)[:, None, None]
        normal = chance.standard_normal((len(self.settings), len(at), draws))
        drawn = mean[:, :, None] + root @ normal
        return np.asarray(drawn.transpose(0, 2, 1).reshape(-1, len(at)))

    def _conditioned(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Covariance of points ``at`` with those that were seen, the weights that this gives the
        results, both [settings, M, N], and the variance of the results [settings]
        (Rasmussen & Williams 2006, equations 2.25 and 2.26)."""
        seen = _covariance(
            _distances(self.rows, self.rows, self.unordered), self.doubts, self.settings
        )
        inverse = np.linalg.inv(seen)
        across = _kernel(_distances(at, self.rows, self.unordered), self.settings) + CONSTANT
        fit = np.einsum("i,sij,j->s", self.results, inverse, self.results)
        scale = (SHAPE + fit / 2) / (SHAPE + len(self.results) / 2)
        return across, across @ inverse, scale

    def believing(self, rows: np.ndarray) -> Process:
        """A copy that takes the results at ``rows`` to be what this process expects there (kriging
        believer; Ginsbourger et al. 2010)."""
        if not len(rows):
            return self
        mean, _ = self.predict(rows)
        return Process(
            rows=np.concatenate([self.rows, rows]),
            results=np.concatenate([self.results, mean.mean(axis=0)]),
            doubts=np.concatenate([self.doubts, np.zeros(len(rows))]),
            unordered=self.unordered,
            settings=self.settings,
        )


def expected_improvement(best: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """How far below ``best`` [settings] a result is expected to lie (Jones et al. 1998), averaged
    over settings; ``mean`` and ``sd`` are [settings, M]."""
    gap = best[:, None] - mean
    z = gap / sd
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return np.asarray((gap * _normal_cdf(z) + sd * density).mean(axis=0))


def _normal_cdf(z: np.ndarray) -> np.ndarray:
    """Standard normal distribution function, by Abramowitz & Stegun 1964, formula 7.1.26 (error
    below 1.5e-7), since numpy has no error function."""
    x = np.abs(z) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * x)
    factors = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    series = np.zeros_like(t)
    for factor in factors:
        series = (series + factor) * t
    erf = 1 - series * np.exp(-(x**2))
    return np.asarray(0.5 * (1 + np.sign(z) * erf))


def _distances(one: np.ndarray, other: np.ndarray, unordered: np.ndarray) -> np.ndarray:
    """Squared distance on each axis between rows of ``one`` and of ``other``: [N, M, axes]."""
    apart = one[:, None, :] - other[None, :, :]
    return np.asarray(np.where(unordered, (apart != 0).astype(float), apart**2))


def _kernel(distances: np.ndarray, settings: np.ndarray) -> np.ndarray:
    """Matérn 5/2 without noise: [settings, N, M]."""
    inverse = np.exp(-2 * settings[:, :-1])
    squared = np.tensordot(inverse, distances, axes=(1, 2))
    root = np.sqrt(5 * squared)
    return np.asarray((1 + root + root**2 / 3) * np.exp(-root))


def _covariance(distances: np.ndarray, doubts: np.ndarray, settings: np.ndarray) -> np.ndarray:
    """Covariance of seen results, with noise, doubts and the constant: [settings, N, N]."""
    noise = np.exp(settings[:, -1]) + JITTER
    return np.asarray(
        _kernel(distances, settings)
        + CONSTANT
        + (noise[:, None] + doubts)[:, :, None] * np.eye(len(doubts))
    )


def _evidence(
    distances: np.ndarray, results: np.ndarray, doubts: np.ndarray, settings: np.ndarray
) -> np.ndarray:
    """Logarithm of the likelihood of the results by each setting, up to a constant."""
    try:
        root = np.linalg.cholesky(_covariance(distances, doubts, settings))
    except np.linalg.LinAlgError:  # one setting is degenerate: the others are not judged by it
        if len(settings) == 1:
            return np.array([-np.inf])
        each = [_evidence(distances, results, doubts, one[None]) for one in settings]
        return np.concatenate(each)
    whitened = np.linalg.solve(root, np.broadcast_to(results, root.shape[:2])[..., None])[..., 0]
    fit = (whitened**2).sum(axis=1)
    size = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    return np.asarray(-size - (SHAPE + len(results) / 2) * np.log(SHAPE + fit / 2))
