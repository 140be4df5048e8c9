"""Balanced accuracy and macro F1 by hand, and measures that decide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.measures.examples import examples
from trainables.errors import BadInput
from trainables.measures import balanced
from trainables.measures.common.deciding import deciding
from trainables.measures.common.measure import weighted

ASKED = examples(*(("closed", answer) for answer in ("yes", "yes", "yes", "no")))
GIVEN = ["Yes.", "no", "maybe", "no"]


def test_rare_answers_count_like_others() -> None:
    found = balanced.score(GIVEN, ASKED)
    assert found["balanced_accuracy"] == pytest.approx(100 * (1 / 3 + 1) / 2)
    # yes: precision 1, recall 1/3; no: precision 1/2, recall 1.
    assert found["macro_f1"] == pytest.approx(100 * (0.5 + 2 / 3) / 2)
    always_yes = balanced.score(["yes"] * 4, ASKED)
    assert always_yes["balanced_accuracy"] == 50


def test_the_class_of_an_option_is_its_text() -> None:
    asked = [replace(e, options=("ct", "mri")) for e in examples(("closed", "B"), ("closed", "A"))]
    assert balanced.score(["mri", "B"], asked)["balanced_accuracy"] == 50
    turned = [asked[0], replace(asked[1], options=("mri", "ct"))]  # MRI both times
    assert balanced.score(["mri", "A"], turned)["balanced_accuracy"] == 100


def test_weights_repeat_questions() -> None:
    weights_RQ = np.array([[1, 1, 1, 1], [2, 0, 1, 3], [0, 0, 0, 2]])
    repeats = replace(balanced.MEASURE, weighted=None)
    for column in balanced.MEASURE.columns:
        quick, slow = (weighted(m, column, GIVEN, ASKED) for m in (balanced.MEASURE, repeats))
        assert quick(weights_RQ) == pytest.approx(slow(weights_RQ))


def test_a_column_or_a_file_decides(tmp_path: Path) -> None:
    by = deciding("macro_f1")
    asked = [*examples(("open", "liver")), *ASKED]
    assert by.places(asked) == [1, 2, 3, 4] and by.title == "macro f1 %"
    assert by.value(["heart", *GIVEN], asked) == balanced.score(GIVEN, ASKED)["macro_f1"]
    with pytest.raises(
        BadInput, match="unknown value of --measure 'macro_f'; did you mean 'macro_f1'"
    ):
        deciding("macro_f")
    with pytest.raises(BadInput, match="unknown value of --measure 'lenient_overall'"):
        deciding("lenient_overall")
    file = tmp_path / "own.py"
    for text, said in (
        ("MEASURE = 3", "must define MEASURE = Measure"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ):
        file.write_text(text)
        with pytest.raises(BadInput, match=said):
            deciding(str(file))
    file.write_text(Path(balanced.__file__).read_text())
    assert deciding(str(file)).column == "balanced_accuracy"
