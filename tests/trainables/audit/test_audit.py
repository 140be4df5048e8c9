"""What the audit finds, in datasets made to have it, and in the real VQA-RAD."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.trainables.data import made
from tests.trainables.data.made import Asked
from tests.trainables.data.pictures import picture
from trainables.audit.audit import Audit, examine
from trainables.audit.checks import CheckResult
from trainables.data import jsonl, vqa_rad
from trainables.data.common.splits import by_image

REAL = Path(__file__).parents[4] / "shared" / "data" / "vqa_rad"

CLEAN = [
    Asked(split=split, picture=number, answer=answer)
    for number, (split, answer) in enumerate(
        [("train", "yes"), ("train", "no"), ("train", "No."), ("validation", "yes"), ("test", "no")]
    )
]


def audited(root: Path, *more: Asked) -> Audit:
    return examine(made.dataset(root, [*CLEAN, *more]))


def found(audit: Audit) -> dict[str, CheckResult]:
    kinds = {finding.kind: finding for finding in audit.findings}
    assert len(kinds) == len(audit.findings)
    return kinds


def test_a_clean_dataset_has_facts_and_no_findings(tmp_path: Path) -> None:
    audit = audited(tmp_path)
    assert audit.findings == audit.stops == ()
    train, test = audit.splits["train"], audit.splits["test"]
    assert (train.questions, train.images, train.open, train.closed, train.yes_no) == (
        3,
        3,
        0,
        3,
        3,
    )
    assert train.frequent_answers == (("no", 2), ("yes", 1))
    assert (train.majority, test.majority) == (pytest.approx(200 / 3), 100)
    assert audit.lines()[-1] == "nothing was found to be wrong"


def test_nothing_in_a_dataset_acts_on_a_terminal(tmp_path: Path) -> None:
    odd = "\x1b[2J\x9b3m \u202e no"
    audit = audited(tmp_path, Asked(split="train", picture=4, answer=odd, image=f"{odd}.png"))
    assert audit.splits["train"].frequent_answers and all(map(str.isprintable, audit.lines()))


@pytest.mark.parametrize("known", ["train", "validation"])
def test_a_question_that_is_known_stops(tmp_path: Path, known: str) -> None:
    """Whatever the image is called, and however the question is written."""
    again = Asked(split=known, picture=4, image="copy.png", question="is this the CT")
    audit = audited(tmp_path, again)
    (stop,) = audit.stops
    assert (stop.kind, stop.count, stop.shown) == ("test_questions_shared", 1, ("q4",))
    assert "1 of 1 test questions (100.0%) are also in train or validation" in stop.text
    assert audit.findings[0] is stop
    assert any(line.startswith("STOP  1 of 1") for line in audit.lines())


def test_a_question_of_training_in_validation_stops_too(tmp_path: Path) -> None:
    (stop,) = audited(tmp_path, Asked(split="validation", picture=0)).stops
    assert stop.kind == "validation_questions_shared"


def test_less_than_a_point_of_accuracy_is_warned_about(tmp_path: Path) -> None:
    many = [Asked(split="test", picture=4, question=f"question {n}") for n in range(100)]
    leak = Asked(split="train", picture=4, question="question 0")
    kinds = found(audited(tmp_path, *many, leak))
    assert kinds["test_questions_shared"].severity == "warn"
    assert kinds["test_questions_shared"].count == 1


def test_an_image_that_is_known_is_warned_about(tmp_path: Path) -> None:
    kinds = found(audited(tmp_path, Asked(split="train", picture=4, question="Where?")))
    assert set(kinds) == {"test_images_shared"}
    assert kinds["test_images_shared"].severity == "warn"
    assert "1 of 1 test images are also in train or validation" in kinds["test_images_shared"].text


def test_copies_are_noted(tmp_path: Path) -> None:
    kinds = found(audited(tmp_path, Asked(split="train", picture=0, image="copy.png")))
    assert set(kinds) == {"image_copies"}
    assert kinds["image_copies"].shown == ("copy.png = 0.png",)


@pytest.mark.parametrize(
    ("split", "kind", "severity"),
    [("train", "lookalikes_within", "note"), ("test", "lookalikes_across", "warn")],
)
def test_an_image_saved_anew_is_found(tmp_path: Path, split: str, kind: str, severity: str) -> None:
    Image.open(picture(tmp_path / "0.png", 0)).resize((40, 40)).save(tmp_path / "9.png")
    kinds = found(audited(tmp_path, Asked(split=split, picture=9)))
    assert set(kinds) == {kind}
    assert (kinds[kind].severity, kinds[kind].shown) == (severity, ("0.png ~ 9.png",))


def test_an_image_without_contrast_is_warned_about(tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), (200, 100, 50)).save(tmp_path / "9.png")
    kinds = found(audited(tmp_path, Asked(split="train", picture=9)))
    assert set(kinds) == {"flat_images"}
    assert (kinds["flat_images"].severity, kinds["flat_images"].shown) == ("warn", ("9.png",))
    assert kinds["flat_images"].text.startswith("1 of 6 images have no contrast")


def test_contradictions_are_noted(tmp_path: Path) -> None:
    kinds = found(audited(tmp_path, Asked(split="train", picture=0, answer="no")))
    assert set(kinds) == {"contradictions"}
    assert kinds["contradictions"].shown == ("q0 / q5",)


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        (Asked(split="train", picture=7, answer="the"), "empty_answers"),
        (Asked(split="train", picture=7, question="?"), "empty_questions"),
        (Asked(split="train", picture=7, answer="word " * 21), "long_answers"),
        (Asked(split="test", picture=7, answer="left"), "closed_not_yes_no"),
        (Asked(split="test", picture=7, answer="left", answer_type="open"), "unseen_answers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_answered_is_found(tmp_path: Path, asked: Asked, kind: str) -> None:
    kinds = found(audited(tmp_path, asked))
    assert set(kinds) == {kind}
    assert kinds[kind].shown == ("q5",)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real VQA-RAD is not in {REAL}")
def test_the_real_vqa_rad() -> None:
    audit = examine(vqa_rad.load(REAL))
    train, validation, test = audit.splits.values()
    assert (train.questions + validation.questions, test.questions) == (1797, 451)
    assert (test.images, test.open, test.closed, test.yes_no) == (203, 179, 272, 251)
    assert not audit.stops
    kinds = found(audit)
    assert kinds["test_images_shared"].count == 202
    assert kinds["test_questions_shared"].shown == ("447",)
    assert "validation_images_shared" not in kinds
    assert not any(kind.startswith("lookalikes") for kind in kinds)

    anew = found(examine(by_image(vqa_rad.load(REAL))))
    assert set(anew) == {"closed_not_yes_no", "unseen_answers"}


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real VQA-RAD is not in {REAL}")
def test_an_instruction_file_with_test_questions_stops(tmp_path: Path) -> None:
    """As a public one: its training part holds 449 of the 451 official test questions, with images
    under other names and questions with a prompt's casing."""
    official = vqa_rad.load(REAL)
    (tmp_path / "images").mkdir()
    for image_id, file in official.images():
        (tmp_path / "images" / f"renamed-{image_id}").symlink_to(file)
    splits = {
        "train": [*official.train, *official.test[:449]],
        "validation": official.validation,
        "test": official.test,
    }
    rows = [
        {
            "image": f"images/renamed-{example.image_id}",
            "question": example.question.upper() if split == "train" else example.question,
            "answer": example.answer,
            "answer_type": example.answer_type,
            "split": split,
        }
        for split, examples in splits.items()
        for example in examples
    ]
    (tmp_path / jsonl.MANIFEST).write_text("\n".join(map(json.dumps, rows)))
    (stop,) = examine(jsonl.load(tmp_path)).stops
    assert stop.kind == "test_questions_shared"
    assert stop.count >= 449
    assert "451 test questions" in stop.text
