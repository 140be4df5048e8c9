"""Tests of groups of questions, on made-up answers whose differences are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from study.analysis.strata import strata
from tests.study.finished import dataset
from trainables.data.common.dataset import Example


def asked() -> list[Example]:
    """400 questions about 100 images, by organ and with one rare modality."""
    return [
        replace(
            example,
            organ=("lung", "liver")[number // 4 % 2],
            modality="ct" if number < 392 else "pet",
            question_type=f"type {number % 4}",
        )
        for number, example in enumerate(dataset().test)
    ]


def test_the_difference_is_found_where_it_is() -> None:
    examples = asked()
    drawn = np.random.default_rng(0)
    lung_Q = np.array([example.organ == "lung" for example in examples])
    luck_SQ = drawn.random((3, len(examples)))
    other_SQ = (luck_SQ < 0.5).astype(float)
    best_SQ = (luck_SQ < np.where(lung_Q, 0.95, 0.5)).astype(float)
    found = strata({"best": best_SQ, "other": other_SQ}, examples)
    assert found is not None
    groups = {(group.field, group.value): group for group in found.groups}
    assert {field for field, _ in groups} == {"question_type", "organ", "answer_type"}
    assert found.tests == len(groups) == 8, "pet has too few questions, and so there is no modality"
    (lung,), (liver,) = (groups["organ", organ].pairs for organ in ("lung", "liver"))
    assert lung.p_holm < 0.05 < liver.p_holm and lung.difference.low > 20
    assert all(pair.p_holm >= pair.p for group in found.groups for pair in group.pairs)
    assert groups["organ", "lung"].questions == 200
    assert groups["organ", "lung"].scores["best"].mean == pytest.approx(
        100 * best_SQ[:, lung_Q].mean()
    )
    assert len(found.contested) == 10
    widest = found.contested[0].right
    assert abs(widest["best"] - widest["other"]) == 100


def test_there_is_nothing_to_divide() -> None:
    examples = dataset().test[:8]
    right_SQ = np.ones((2, 8))
    assert strata({"a": right_SQ}, examples) is None
    assert strata({"a": right_SQ, "b": right_SQ}, examples) is None
