"""Questions asked of other images than their own, and likelihoods of possible answers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainables.measures.examples import examples
from tests.trainables.training.trials import config
from trainables.data.common.wording import DEFAULT_ASKING, Asking
from trainables.measures import likelihoods
from trainables.measures.common.measure import weighted
from trainables.measures.common.options import choices_of
from trainables.measures.common.scores import score
from trainables.training.blind import BLANK, SWAPPED, blind
from trainables.training.trial import Trial
from trainables.workload import Workload


def test_a_blank_image_is_grey_and_the_questions_stay(workload: Workload) -> None:
    grey = blind(workload, BLANK, "test")
    assert (grey.images_NSSC == 128).all() and grey.images_NSSC.shape[1:] == (
        workload.images_NSSC.shape[1:]
    )
    own = workload.rows["test"]
    assert [replace(row, image=0) for row in own] == list(grey.rows["test"])
    trial = Trial(workload, config(workload))
    given = trial.answers("test", grey)
    assert len(given) == len(own)
    same = {row.question for row in own}
    assert len(set(zip((r.question for r in own), given, strict=True))) == len(same), (
        "without an image the same question gets the same answer"
    )


def test_another_patients_image_is_of_another_patient(workload: Workload) -> None:
    ids = sorted({e.image_id for e in workload.dataset.test})
    patients = {image: f"p{place // 2}" for place, image in enumerate(ids)}
    test = tuple(replace(e, patient=patients[e.image_id]) for e in workload.dataset.test)
    named = replace(workload, dataset=replace(workload.dataset, test=test))
    for one in (workload, named):
        rows = one.rows["test"]
        unit = {row.image: e.unit for row, e in zip(rows, one.dataset.test, strict=True)}
        swapped = blind(one, SWAPPED, "test").rows["test"]
        assert swapped == blind(one, SWAPPED, "test").rows["test"]
        pairs = zip(rows, swapped, strict=True)
        assert all(unit[was.image] != unit[now.image] for was, now in pairs)


def test_the_possible_answers_to_closed_questions() -> None:
    closed, cased, opened, other = examples(
        ("closed", "no"), ("closed", "Yes."), ("open", "yes"), ("closed", "left")
    )
    assert choices_of(closed) == (("yes", "no"), 1)
    assert choices_of(cased) == (("Yes", "No"), 0)
    assert choices_of(opened) == choices_of(other) == ((), -1)
    assert choices_of(replace(closed, answer="B", options=("ct", "mri"))) == (("A", "B"), 1)


def test_a_likelihood_is_the_loss_of_that_answer(workload: Workload) -> None:
    """Every third question stays open."""
    test = tuple(
        e if n % 3 == 2 else replace(e, answer=("yes", "no")[n % 2], answer_type="closed")
        for n, e in enumerate(workload.dataset.test)
    )
    dataset = replace(workload.dataset, test=test)
    # Asked anew, since the rows have the answers that there were.
    asked = replace(workload, dataset=dataset, asking=Asking(prompt="a {question}"))
    closed = asked.asked(DEFAULT_ASKING)
    trial = Trial(closed, config(closed))
    found = trial.likelihoods("test")
    assert [one is None for one in found] == [n % 3 == 2 for n in range(len(test))]
    for place, one in enumerate(found):
        if one is not None:
            answers, true = choices_of(test[place])
            assert len(one) == len(answers) == 2
            with torch.no_grad():
                batch = closed.batch("test", [place])
                loss = closed.model.losses(trial.losses.network, batch, summed=True)
            assert one[true] == pytest.approx(-float(loss), abs=1e-3)
    given = trial.answers("test")
    assert 0 <= score(test, given, found)["ece"] <= 100
    assert "auroc" not in score(test, given)


def chances(*of_yes: float) -> list[list[float]]:
    return [[math.log(chance), math.log(1 - chance)] for chance in of_yes]


def test_auroc_and_calibration_by_hand() -> None:
    asked = examples(*(("closed", answer) for answer in ("yes", "yes", "no", "no")))
    found = likelihoods.score(chances(0.9, 0.3, 0.3, 0.1), asked)
    # Of four pairs, three are in order but for a tie, which counts half.
    assert found["auroc"] == pytest.approx(100 * 3.5 / 4)
    # Confidences 0.9, 0.7, 0.7, 0.9; right, wrong, right, right: 0.1 off at 0.9, 0.2 at 0.7.
    assert found["ece"] == pytest.approx(100 * (0.5 * 0.1 + 0.5 * 0.2))
    one = [replace(e, options=("ct", "mri")) for e in examples(("closed", "ct"))]
    assert likelihoods.score([[0.0, -1.0]], one)["auroc"] == 100
    assert likelihoods.score(chances(0.5), asked[:1])["auroc"] == 50, "nothing to tell apart"
    weights_RQ = np.array([[1, 1, 1, 1], [2, 0, 1, 3], [0, 0, 0, 2]])
    repeats = replace(likelihoods.MEASURE, weighted=None)
    for column in likelihoods.MEASURE.columns:
        both = (
            weighted(measure, column, chances(0.9, 0.3, 0.3, 0.1), asked)
            for measure in (likelihoods.MEASURE, repeats)
        )
        quick, slow = (of(weights_RQ) for of in both)
        assert quick == pytest.approx(slow)


def test_the_calibration_error_by_chance_is_that_of_a_share() -> None:
    """Of 400 answers with a confidence of 80%, the share that is right is 2 points off in one
    standard deviation, and 2.24 of these are exceeded in 2.5%, on either side."""
    given = [[math.log(0.8), math.log(0.2)]] * 400
    found = likelihoods.ece_by_chance([given], examples(*[("closed", "yes")] * 400), 97.5)
    assert found == pytest.approx(4.48, abs=0.3)
