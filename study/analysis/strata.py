"""Groups of questions on which arms differ: by question type, modality, organ, answer type, length.

Groups of questions are many, so every comparison is corrected for all that were looked at (Holm).
They explain the verdict and are no findings of their own (Wang et al. 2007, doi
10.1056/NEJMsr077003).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from study.statistics.strata_types import ContestedQuestion, Strata, Stratum, StratumPair
from study.statistics.uncertainty import Scores, holm
from trainables.measures.common.normalize import normalize
from trainables.measures.common.scripts import words

if TYPE_CHECKING:
    from trainables.data.common.dataset import Example

Array = np.ndarray[Any, Any]
FEWEST, FEWEST_UNITS = 20, 10
"""Questions, and images or patients, that a group has at least; smaller ones are left out."""
MOST = 12
"""Largest number of groups by one field; with more, the largest groups are taken."""
CONTESTED = 10
"""Number of questions that are listed as those on which arms differ most."""
REPLICATES = 4_000
"""Number of times that the images of a group are resampled."""


def strata(
    correct: Mapping[str, Array], examples: Sequence[Example], against: str | None = None
) -> Strata | None:
    """How the arms differ on groups of questions; None if there are fewer than two arms, or no
    respect divides the questions into two groups that are large enough.

    Args:
        correct: arm -> credit of each answer of each seed's model, 0 to 1; shape (S, Q). The best
            arm comes first.
        examples: the questions.
        against: arm with which each other arm is compared; None, or not in ``correct``: the best.
    """
    if len(correct) < 2:
        return None
    units_Q = np.array([example.unit for example in examples])
    one = against if against is not None and against in correct else next(iter(correct))
    others = [arm for arm in correct if arm != one]
    groups: list[Stratum] = []
    for field in ("question_type", "modality", "organ", "answer_type", "length"):
        value_Q = np.array([_value(field, example) for example in examples])
        sizes = {
            value: count
            for value, count in Counter(value_Q.tolist()).most_common(MOST)
            if value and count >= FEWEST and len(set(units_Q[value_Q == value])) >= FEWEST_UNITS
        }
        if len(sizes) < 2:
            continue
        for value, count in sizes.items():
            asked_Q = value_Q == value
            scores = Scores(
                {arm: correct_SQ[:, asked_Q] for arm, correct_SQ in correct.items()},
                units_Q[asked_Q].tolist(),
                replicates=REPLICATES,
            )
            pairs = []
            for other in others:
                found = scores.difference(one, other)
                pairs.append(
                    StratumPair(
                        first=one,
                        second=other,
                        difference=found.estimate,
                        p=found.p,
                        p_holm=found.p,
                    )
                )
            groups.append(
                Stratum(
                    field=field,
                    value=value,
                    questions=count,
                    scores={arm: scores.score(arm) for arm in correct},
                    pairs=tuple(pairs),
                )
            )
    if not groups:
        return None
    corrected = iter(holm([pair.p for group in groups for pair in group.pairs]))
    return Strata(
        groups=tuple(
            replace(
                group, pairs=tuple(replace(pair, p_holm=next(corrected)) for pair in group.pairs)
            )
            for group in groups
        ),
        tests=sum(len(group.pairs) for group in groups),
        contested=_contested(correct, examples),
    )


def _value(field: str, example: Example) -> str:
    """The group of a question in one respect; empty if it is not known."""
    if field != "length":
        return str(getattr(example, field))
    count = len(words(normalize(example.answer)))
    return "1 word" if count <= 1 else "2 or 3 words" if count <= 3 else "4 words or more"


def _contested(
    correct: Mapping[str, Array], examples: Sequence[Example]
) -> tuple[ContestedQuestion, ...]:
    """The questions whose arms' means over seeds are furthest apart, in the order of the data where
    they are equally far."""
    mean_AQ = np.stack([correct_SQ.mean(0) for correct_SQ in correct.values()])
    spread_Q = mean_AQ.max(0) - mean_AQ.min(0)
    return tuple(
        ContestedQuestion(
            question_id=examples[i].question_id,
            question=examples[i].question,
            answer=examples[i].answer,
            right={
                arm: float(100 * mean) for arm, mean in zip(correct, mean_AQ[:, i], strict=True)
            },
        )
        for i in np.argsort(-spread_Q, kind="stable")[:CONTESTED].tolist()
        if spread_Q[i] > 0
    )
