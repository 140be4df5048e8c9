"""Which confirmations count as collapsed: by their answers, and by how their losses ended."""

import dataclasses
from pathlib import Path

import pytest

from study.analysis.collapses import collapsed
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage import answers
from study.storage.study_folder import StudyFolder
from study.trials.record import Outcome, Rung, TrialRecord
from study.trials.spec import Kind, TrialSpec
from tests.study.finished import SPACE, dataset
from tests.study.made_up import rules

DATA = dataset(images=30)
TRUE = [example.answer for example in DATA.test]
SEARCHED = (1.2, 1.0, 0.5)
"""Losses of the search trial."""


def record(spec: TrialSpec, losses: tuple[float, ...]) -> TrialRecord:
    return TrialRecord(
        spec=spec,
        number=0,
        started_at=0.0,
        outcome=Outcome.COMPLETE,
        rungs=[
            Rung(
                examples_seen=100 * (1 + place),
                validation_loss=loss,
                train_loss=loss,
                seconds=1.0,
                reported_at=0.0,
            )
            for place, loss in enumerate(losses)
        ],
    )


@pytest.mark.parametrize(
    ("losses", "given", "there", "counts"),
    [
        ((1.2, 1.0, 0.55), TRUE, True, False),
        ((1.2, 1.0, 0.55), ["yes"] * len(TRUE), True, True),
        ((1.1, 6.7, 3.2), ["yes yes", "four four", "", "knee"] * 30, True, True),
        ((1.1, 3.0, 0.6), TRUE, True, False),  # rose, and came back
        ((0.45, 0.45, 0.6), TRUE, True, False),  # the search trial ends there, too
        ((1.2, 1.0, 0.9), TRUE, True, False),  # never rose
        ((1.1, 6.7, 3.2), TRUE, False, False),  # its search trial is not known
    ],
)
def test_a_seed_collapsed_by_its_answers_or_by_how_its_loss_ended(
    losses: tuple[float, ...], given: list[str], there: bool, counts: bool, tmp_path: Path
) -> None:
    spec = StudyScheduler(rules(space=SPACE, trials=5), StudyJournal(tmp_path)).next()
    assert spec is not None
    confirmed = record(dataclasses.replace(spec, kind=Kind.CONFIRM, seed=1), losses)
    folder = StudyFolder.from_path(tmp_path)
    answers.write(folder, confirmed.spec.id, "test", DATA.test, given)
    searched = [record(dataclasses.replace(spec, lr=spec.lr / 2), (9.0, 9.0, 9.0))]
    searched += [record(spec, SEARCHED)] * there
    found = collapsed(folder, [confirmed], searched, lambda _: DATA)
    assert found == ({confirmed.spec.id} if counts else set())
