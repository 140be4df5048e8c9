"""The variance of a score or of a difference by its sources, and how well it is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

RARE, UNSEEN = 6, 3
"""If fewer than ``RARE`` of ``n`` images tell two arms apart, up to ``UNSEEN / n`` of all images
may be unlike those that were drawn."""


@dataclass(frozen=True, kw_only=True)
class VarianceComponents:
    """The variance of a score or a difference by its sources, for scores as fractions, not percent.

    With S seeds and C images the variance is ``(images + sum(both) / S) / C + sum(seeds) / S``,
    where each arm has an S of its own.
    """

    count_S: int
    """Number of seeds of each arm; of the arm with the fewest."""
    counts: tuple[int, ...] = ()
    """Number of seeds of each arm, where they are not all ``count_S``; else empty."""
    count_C: int
    """Number of images."""
    images: float
    """Variance between images, over and above what differs between seeds."""
    seeds: tuple[float, ...]
    """Variance between seeds over and above ``both``, for each arm."""
    both: tuple[float, ...]
    """Variance between seeds on one image, for each arm."""
    rare: bool = False
    """Whether fewer than ``RARE`` images tell the two arms apart."""
    borrowed: tuple[float, ...] = ()
    """Degrees of freedom that other arms add to the variance between each arm's seeds; empty: none
    do."""
    lenders: int = 0
    """Number of arms whose variances moderate each other."""

    def scaled(self, factor: float) -> VarianceComponents:
        """These components with every variance multiplied by ``factor``."""
        return replace(
            self,
            images=factor * self.images,
            seeds=tuple(factor * each for each in self.seeds),
            both=tuple(factor * each for each in self.both),
        )

    def unseen(self, images: int) -> float:
        """Fraction by which images unlike those that were drawn may move the difference."""
        if not self.rare:
            return 0.0
        return UNSEEN / images if images >= RARE else 2.0

    def variance(self, seeds: int, images: int) -> float:
        """Variance of the mean, if there were that many images and, of each arm that does not have
        more anyway, that many seeds."""
        return self._from_images(seeds, images) + self.from_seeds(seeds)

    def from_seeds(self, seeds: int) -> float:
        """Part of ``variance`` that more seeds alone would reduce."""
        return sum(each / count for each, count in zip(self.seeds, self._seeds(seeds), strict=True))

    def freedom(self, seeds: int, images: int) -> float:
        """Degrees of freedom of the estimate of ``variance(seeds, images)`` (Satterthwaite).

        They go by the parts that seeds and images have in it, which are estimates too: where the
        variance of few seeds was found too small, they would be too many just where the interval is
        too short. So the part of seeds, which ``f`` degrees of freedom tell, is taken to be
        ``1 + 2 / f`` times as large here (``tests/benchmarks/RESULTS.md`` says what that does)."""
        if seeds < 2:
            return float("inf")
        from_images = self._from_images(seeds, images)
        of_seeds, known, together, least = 0.0, 0.0, 0.0, float("inf")
        borrowed = self.borrowed or (0.0,) * len(self.seeds)
        each = zip(self.seeds, self.both, borrowed, self._seeds(seeds), strict=True)
        for between, both, lent, count in each:
            # Where no variance between seeds was found, it adds no uncertainty either.
            measured = (between + both / images) / count if between else 0.0
            of_seeds += measured
            if lent:
                together += measured
                least = min(least, lent + count - 1, self.lenders * (count - 1))
            else:
                known += measured**2 / (count - 1)
        # Moderated variances err together, and are known no better than all their arms' seeds.
        known += together**2 / least
        larger = 1 + 2 * known / of_seeds**2 if of_seeds else 1.0
        whole = self.variance(seeds, images) + (larger - 1) * of_seeds
        known = from_images**2 / max(images - 1, 1) + larger**2 * known
        return whole**2 / known if known else float("inf")

    @property
    def seeds_share(self) -> float:
        """Share of the present variance that more seeds alone could remove; 0 to 1."""
        now = self.variance(self.count_S, self.count_C)
        of_seeds = self.from_seeds(self.count_S) + self._of_both(self.count_S) / self.count_C
        return of_seeds / now if now else 0.0

    def _from_images(self, seeds: int, images: int) -> float:
        """Part of the variance that more images would reduce."""
        return (self.images + self._of_both(seeds)) / images

    def _of_both(self, seeds: int) -> float:
        return sum(each / count for each, count in zip(self.both, self._seeds(seeds), strict=True))

    def _seeds(self, seeds: int) -> tuple[int, ...]:
        """Number of seeds of each arm, if each had ``seeds`` at least."""
        return tuple(max(seeds, own) for own in self.counts or (seeds,) * len(self.seeds))
