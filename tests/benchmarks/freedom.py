"""How often an interval holds the truth, by how many degrees of freedom are given to its variance.

    python -m tests.benchmarks.freedom [--studies 40000]

The estimator alone: the luck of images is normal and its variance known, that of seeds is normal
and its variance estimated from few. *Shares as found* is Satterthwaite's formula with the estimated
variances as they are; *ours* is ``VarianceComponents.freedom``. Printed for a single arm, for two
whose seeds vary alike, and for one against an arm whose seeds do not vary: percent of 95% intervals
that hold the truth, and how many times as wide ours are in the median.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from scipy import stats

from study.statistics.variance_components import VarianceComponents

Array = np.ndarray[Any, Any]
IMAGES = 100_000
"""So many that their variance is as good as known."""
RATIOS = (0.3, 0.7, 1.0, 2.0, 4.0)
"""Standard deviation by which seeds move a score, as a multiple of that by which images do."""
SEEDS = (2, 3, 5, 10)
ARMS = {"one arm": (1.0,), "two alike": (1.0, 1.0), "one and a steady one": (1.0, 0.0)}


def freedom_as_found(of_seeds_A: Array, of_images: float, seeds: int) -> float:
    """Satterthwaite's degrees of freedom; the variance of images is known."""
    known = float((of_seeds_A**2).sum()) / (seeds - 1)
    return float((of_seeds_A.sum() + of_images) ** 2 / known) if known else float("inf")


def ours(of_seeds_A: Array, of_images: float, seeds: int) -> float:
    """Degrees of freedom that the product takes."""
    components = VarianceComponents(
        count_S=seeds,
        count_C=IMAGES,
        images=of_images * IMAGES,
        seeds=tuple(seeds * of_seeds_A),
        both=(0.0,) * len(of_seeds_A),
    )
    return components.freedom(seeds, IMAGES)


def covered(ratio: float, seeds: int, arms: tuple[float, ...], studies: int) -> Array:
    """Percent held with the shares as found and with ours, and how much wider ours are."""
    drawn = np.random.default_rng(0)
    true_A = (ratio * np.array(arms)) ** 2
    error_R = drawn.normal(size=studies) * np.sqrt(1 + true_A.sum())
    chi_RA = drawn.chisquare(seeds - 1, (studies, len(arms))) / (seeds - 1)
    counts, wider = np.zeros(2), np.empty(studies)
    for study, (error, found_A) in enumerate(zip(error_R, true_A * chi_RA, strict=True)):
        spread = np.sqrt(1 + found_A.sum())
        frees = [free(found_A, 1.0, seeds) for free in (freedom_as_found, ours)]
        halves = stats.t.ppf(0.975, np.minimum(frees, 1e9)) * spread
        counts += abs(error) <= halves
        wider[study] = halves[1] / halves[0]
    return np.array([*(100 * counts / studies), np.median(wider)])


def main() -> None:
    """Print a table for each kind of comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=40_000, help="of each figure")
    studies = parser.parse_args().studies
    for name, arms in ARMS.items():
        print(f"\n{name}: shares as found / ours (times as wide)\n")
        print("| seeds | " + " | ".join(f"{ratio}" for ratio in RATIOS) + " |")
        print("|---" * (1 + len(RATIOS)) + "|")
        for seeds in SEEDS:
            found = [covered(ratio, seeds, arms, studies) for ratio in RATIOS]
            cells = [f"{a:.1f} / **{b:.1f}** ({wide:.2f})" for a, b, wide in found]
            print(f"| {seeds} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
