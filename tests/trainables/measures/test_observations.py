"""What a report asserts and what it denies."""

from __future__ import annotations

import math

import pytest

from tests.trainables.measures.examples import reports
from trainables.measures.observations import OBSERVATIONS, asserted, score


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("The heart is enlarged. Small left pleural effusion.", "cardiomegaly, pleural effusion"),
        ("No pleural effusion or pneumothorax.", ""),
        ("No pneumothorax, effusion, or focal consolidation is seen.", ""),
        ("There is no edema but a small effusion is noted.", "pleural effusion"),
        ("Lungs are free of focal opacity. Healed rib fractures.", "fracture"),
        ("Pneumonia was ruled out. Right basilar atelectasis.", "atelectasis"),
        ("No change in the effusion.", "pleural effusion"),
        ("Possible small nodule in the right upper lobe.", "lung lesion"),
        ("Heart size and mediastinum are normal. The lungs are clear.", ""),
        ("XXXX sternotomy. CALCIFIED GRANULOMA.", "lung lesion, support devices"),
        ("", ""),
    ],
)
def test_a_mention_counts_unless_it_is_denied(report: str, expected: str) -> None:
    assert ", ".join(sorted(asserted(report))) == expected


def test_every_observation_can_be_found_and_denied() -> None:
    for name, phrases in OBSERVATIONS.items():
        for phrase in phrases:
            assert name in asserted(f"There is {phrase}."), phrase
            assert asserted(f"There is no {phrase}.") == frozenset(), phrase


def test_the_measures_are_micro_averages() -> None:
    true = ["Cardiomegaly and effusion.", "No effusion.", "Pneumothorax."]
    said = ["Cardiomegaly.", "Effusion.", "Pneumothorax and edema."]
    assert score(said, reports(*true)) == {
        "observations_precision": 50.0,  # 2 of 4
        "observations_recall": pytest.approx(200 / 3),  # 2 of 3
        "observations_f1": pytest.approx(400 / 7),
    }
    assert all(map(math.isnan, score(["Clear."], reports("No effusion.")).values()))
