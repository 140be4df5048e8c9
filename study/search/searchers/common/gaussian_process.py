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
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import ParamSpec, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

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
AT_ONCE = 2**15
"""Elements of a kernel that are computed at once: what fits into a processor's cache."""
BORDER = 1e30
"""More than the fit of any results, so that a covariance that is bordered by them is positive
definite."""
ROUNDING = 1e-5
"""Variance that is added to each result of a surface, so that its covariance is positive definite
after rounding too. Its root is 0.3% of the results' standard deviation, too little to matter."""

LIBRARIES = ThreadpoolController()
Given = ParamSpec("Given")
Found = TypeVar("Found")


def on_one_thread(computed: Callable[Given, Found]) -> Callable[Given, Found]:
    """A function whose products of matrices take one thread. Threads for matrices of fifty rows
    wait for each other longer than they compute, a hundred times where trials have the
    processors."""

    @wraps(computed)
    def on_one(*arguments: Given.args, **named: Given.kwargs) -> Found:
        with LIBRARIES.limit(limits=1, user_api="blas"):
            return computed(*arguments, **named)

    return on_one


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

        def likely(settings: np.ndarray) -> np.ndarray:
            prior = -0.5 * (((settings - middle) / wide) ** 2).sum(axis=1)
            return np.asarray(prior + _evidence(rows, unordered, results, doubts, settings))

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
        inverse, scale = self._conditioned
        across = self._across(at)
        mean = across @ (inverse @ self.results)[:, :, None]
        left = 1.0 + CONSTANT - ((across @ inverse) * across).sum(axis=2)
        return mean[:, :, 0], np.sqrt(np.maximum(left, 1e-12) * scale[:, None])

    def surfaces(self, at: np.ndarray, draws: int, chance: np.random.Generator) -> np.ndarray:
        """Results without noise at points ``at`` [M, axes], drawn jointly ``draws`` times by each
        setting: [settings * draws, M]."""
        inverse, scale = self._conditioned
        across = self._across(at)
        weights = across @ inverse
        mean = weights @ self.results
        prior = _kernel_among(at, self.unordered, self.settings) + CONSTANT
        left = prior - weights @ across.transpose(0, 2, 1)
        # What is drawn jointly is nearly determined by its neighbours: rounding may make it less.
        root = np.linalg.cholesky(left + ROUNDING * np.eye(len(at)))
        root = root * np.sqrt(scale)[:, None, None]
        normal = chance.standard_normal((len(self.settings), len(at), draws))
        drawn = mean[:, :, None] + root @ normal
        return np.asarray(drawn.transpose(0, 2, 1).reshape(-1, len(at)))

    @cached_property
    def _conditioned(self) -> tuple[np.ndarray, np.ndarray]:
        """Inverse of the seen results' covariance [settings, N, N], and the variance of the
        results [settings] (Rasmussen & Williams 2006, equations 2.25 and 2.26)."""
        seen = _covariance(self.rows, self.unordered, self.doubts, self.settings)
        inverse = np.linalg.inv(seen)
        fit = np.einsum("i,sij,j->s", self.results, inverse, self.results)
        return inverse, (SHAPE + fit / 2) / (SHAPE + len(self.results) / 2)

    def _across(self, at: np.ndarray) -> np.ndarray:
        """Covariance of points ``at`` with those that were seen: [settings, M, N]."""
        apart = distances(at[:, None], self.rows, self.unordered)
        return _kernel(apart, self.settings) + CONSTANT

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


def distances(one: np.ndarray, other: np.ndarray, unordered: np.ndarray) -> np.ndarray:
    """Squared distance on each axis between rows of ``one`` and of ``other``, which are broadcast
    against each other: [..., axes]."""
    found = one - other
    found *= found
    if unordered.any():
        found[..., unordered] = found[..., unordered] != 0
    return np.asarray(found)


def _kernel(squares: np.ndarray, settings: np.ndarray) -> np.ndarray:
    """Matérn 5/2 without noise: [settings, ...]."""
    factors = 5 * np.exp(-2 * settings[:, :-1])
    found = np.empty((len(settings), *squares.shape[:-1]))
    together = max(1, AT_ONCE // max(found[0].size, 1))
    for start in range(0, len(settings), together):
        some = slice(start, start + together)
        squared = np.tensordot(factors[some], squares, axes=(1, -1))
        root = np.sqrt(squared)
        kernel = np.exp(-root, out=found[some])
        squared /= 3
        squared += root
        squared += 1
        kernel *= squared
    return found


def _kernel_among(rows: np.ndarray, unordered: np.ndarray, settings: np.ndarray) -> np.ndarray:
    """The kernel of ``rows`` with themselves, each pair computed once: [settings, N, N]."""
    first, second = np.tril_indices(len(rows), -1)
    pairs = _kernel(distances(rows[first], rows[second], unordered), settings)
    found = np.ones((len(settings), len(rows), len(rows)))
    found[:, first, second] = found[:, second, first] = pairs
    return found


def _covariance(
    rows: np.ndarray, unordered: np.ndarray, doubts: np.ndarray, settings: np.ndarray
) -> np.ndarray:
    """Covariance of seen results, with noise, doubts and the constant: [settings, N, N]."""
    found = _kernel_among(rows, unordered, settings) + CONSTANT
    diagonal = np.arange(len(rows))
    found[:, diagonal, diagonal] += (np.exp(settings[:, -1]) + JITTER)[:, None] + doubts
    return found


def _evidence(
    rows: np.ndarray,
    unordered: np.ndarray,
    results: np.ndarray,
    doubts: np.ndarray,
    settings: np.ndarray,
) -> np.ndarray:
    """Logarithm of the likelihood of the results by each setting, up to a constant."""
    count = len(rows)
    # The root of the covariance, bordered by the results, has the whitened results in its last row.
    bordered = np.full((len(settings), count + 1, count + 1), BORDER)
    bordered[:, :count, :count] = _covariance(rows, unordered, doubts, settings)
    bordered[:, count, :count] = bordered[:, :count, count] = results
    try:
        root = np.linalg.cholesky(bordered)
    except np.linalg.LinAlgError:  # one setting is degenerate: the others are not judged by it
        if len(settings) == 1:
            return np.array([-np.inf])
        each = [_evidence(rows, unordered, results, doubts, one[None]) for one in settings]
        return np.concatenate(each)
    fit = (root[:, count, :count] ** 2).sum(axis=1)
    size = np.log(np.diagonal(root, axis1=1, axis2=2)[:, :count]).sum(axis=1)
    return np.asarray(-size - (SHAPE + count / 2) * np.log(SHAPE + fit / 2))
