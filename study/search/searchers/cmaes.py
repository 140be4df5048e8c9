"""CMA-ES (Hansen 2016, arXiv 1604.00772): a normal distribution that moves to where losses are low.

The arm's ended trials, in the order in which they were drawn, are its generations, and the
distribution is computed from them anew for each draw. Trials that were stopped count with the loss
that is expected of them (``common/expected_losses.py``). Each value of a choice is a place on an
axis. CMA-ES is made for hundreds of trials of an arm and continuous parameters.

After every ``LATEST`` trials of the study it begins anew, as wide as at first, around the best
trial: earlier ones are forgotten, so their generations are no longer known.
"""

from __future__ import annotations

import math

import numpy as np

from study.search.searchers.common import expected_losses
from study.search.searchers.common.cube import Cube
from study.search.searchers.common.known_trials import LATEST, Past, Point

SIGMA = 0.25
"""First standard deviation, as a share of a range."""
TRIES = 20
"""Points that are drawn from the distribution until one is in the ranges and new."""


def point(past: Past, arm: str) -> Point:
    """The next point of ``arm``; its first points are spread over its ranges."""
    first = past.first(arm)
    if first is not None:
        return first
    cube = Cube(past.ranges(arm))
    own = expected_losses.ended(past.of_arm(arm))
    rows = np.array([cube.row(trial.params) for trial in own]).reshape(-1, len(cube.axes))
    losses = expected_losses.losses(own)
    begun = past.trial.number // LATEST * LATEST
    now = np.array([trial.number >= begun for trial in own], bool)
    start = np.full(len(cube.axes), 0.5) if now.all() else rows[~now][losses[~now].argmin()]
    mean, spread = _distribution(rows[now], losses[now], start)
    for _ in range(TRIES):
        row = mean + spread @ past.chance.standard_normal(len(cube.axes))
        found = cube.point(np.clip(row, 0.0, 1.0))
        if (row == np.clip(row, 0.0, 1.0)).all() and not past.known(arm, found):
            return found
    return past.random(arm)


def _distribution(
    rows: np.ndarray, losses: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and root of the covariance after all whole generations of ``rows``, from a first
    ``mean``.

    Names are Hansen's, and so are the constants (his Table 1), without negative weights.
    """
    axes = len(mean)
    size = 4 + int(3 * math.log(axes))
    weights = math.log(size / 2 + 0.5) - np.log(np.arange(1, size // 2 + 1))
    weights /= weights.sum()
    mu = 1 / (weights**2).sum()
    c_sigma = (mu + 2) / (axes + mu + 5)
    d_sigma = 1 + 2 * max(0.0, math.sqrt((mu - 1) / (axes + 1)) - 1) + c_sigma
    c_c = (4 + mu / axes) / (axes + 4 + 2 * mu / axes)
    c_1 = 2 / ((axes + 1.3) ** 2 + mu)
    c_mu = min(1 - c_1, 2 * (mu - 2 + 1 / mu) / ((axes + 2) ** 2 + mu))
    length = math.sqrt(axes) * (1 - 1 / (4 * axes) + 1 / (21 * axes**2))
    sigma, covariance = SIGMA, np.eye(axes)
    p_sigma, p_c = np.zeros(axes), np.zeros(axes)
    for number, start in enumerate(range(0, len(rows) - size + 1, size)):
        of_generation = losses[start : start + size]
        order = np.argsort(of_generation, kind="stable")[: len(weights)]
        steps = (rows[start : start + size][order] - mean) / sigma
        values, vectors = np.linalg.eigh(covariance)
        whitening = vectors @ np.diag(1 / np.sqrt(np.maximum(values, 1e-12))) @ vectors.T
        step = weights @ steps
        mean = mean + sigma * step
        p_sigma = (1 - c_sigma) * p_sigma + math.sqrt(c_sigma * (2 - c_sigma) * mu) * (
            whitening @ step
        )
        norm = float(np.linalg.norm(p_sigma))
        bound = math.sqrt(1 - (1 - c_sigma) ** (2 * (number + 1))) * (1.4 + 2 / (axes + 1))
        moving = float(norm < bound * length)
        p_c = (1 - c_c) * p_c + moving * math.sqrt(c_c * (2 - c_c) * mu) * step
        kept = 1 - c_1 - c_mu + (1 - moving) * c_1 * c_c * (2 - c_c)
        covariance = (
            kept * covariance
            + c_1 * np.outer(p_c, p_c)
            + c_mu * np.einsum("i,ij,ik->jk", weights, steps, steps)
        )
        sigma = float(np.clip(sigma * math.exp(c_sigma / d_sigma * (norm / length - 1)), 1e-3, 0.5))
    values, vectors = np.linalg.eigh(covariance)
    return mean, sigma * vectors @ np.diag(np.sqrt(np.maximum(values, 1e-12)))
