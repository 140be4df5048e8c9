"""The shipped dataset: the same everywhere, drawn safely, visible, and not to be guessed."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.data import phantom
from trainables.data._phantom import drawing
from trainables.data._phantom.bits import Bits
from trainables.data._phantom.cases import LESIONS, cases_of
from trainables.data.common.dataset import Dataset, Example
from trainables.data.common.images import load_images
from trainables.errors import BadInput
from trainables.measures.common.baselines import majority_baseline
from trainables.measures.common.scores import score

# The content of version 1. Studies are compared across machines by it: change it with VERSION only.
DIGEST = "011ea3b19a004a1cc22b29156d56c250ab7a223fa99d0d057f772365200be2b4"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phantom")


@pytest.fixture(scope="module")
def data(root: Path) -> Dataset:
    return phantom.load(root)


def test_is_the_same_to_the_last_bit(data: Dataset) -> None:
    assert data.digest == DIGEST


def test_two_processes_may_draw_it_at_once(tmp_path: Path) -> None:
    command = (
        "import sys; from pathlib import Path; from trainables.data import phantom; "
        "print(phantom.load(Path(sys.argv[1])).digest)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", command, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in processes] == [DIGEST, DIGEST]
    assert os.listdir(tmp_path) == ["phantom-v1"]  # nothing is left lying about


def test_damaged_data_are_drawn_again(tmp_path: Path) -> None:
    folder = tmp_path / "phantom-v1"
    (folder / "images").mkdir(parents=True)
    (folder / "questions.jsonl").write_text('{"split": "train"}\n')
    whole = phantom.load(tmp_path)
    image = whole.train[0].image
    image.write_bytes(image.read_bytes()[:-1] + b"\x00")
    whole.test[0].image.unlink()
    assert phantom.load(tmp_path) == whole
    for line in ("[" * 100_000, '"text"', "[]"):
        (folder / "questions.jsonl").write_text(line)
        assert phantom.load(tmp_path) == whole


def test_a_folder_that_cannot_be_written_is_replaced_by_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    drawn = phantom.load(tmp_path / "file")
    assert drawn.train[0].image.is_relative_to(tmp_path / "temporary")


def test_no_folder_that_can_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(BadInput, match=r"can't be written.*--data-root") as error:
        phantom.load(tmp_path / "file")
    assert "\n" not in str(error.value)


def test_lesions_are_drawn_as_the_case_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a body of one grey and without the machine, there are the lesions and nothing else."""
    machines = {name: lambda body, bits: body for name in drawing._MACHINES}
    monkeypatch.setattr(drawing, "_MACHINES", machines)
    monkeypatch.setattr(drawing, "_body", lambda *_: np.full((96, 96), 128.0))
    for case in cases_of("train", 200, Bits(7)):
        if case.finding not in LESIONS:
            continue
        changed = np.abs(drawing.draw(case).astype(int) - 128) > 40
        radius = drawing.RADIUS[case.size]
        assert 0.6 < changed.sum() / (case.count * math.pi * radius**2) < 1.4, case
        left, right = changed[:, :48].sum(), changed[:, 48:].sum()
        seen = "both" if min(left, right) > 0.2 * max(left, right) else None
        assert (seen or ("left" if left > right else "right")) == case.side, case


@pytest.mark.parametrize("kind", ["modality", "plane", "organ"])
def test_what_is_asked_about_can_be_seen(data: Dataset, kind: str) -> None:
    """The most similar training image, at 24 x 24 pixels, mostly has the same answer."""

    def known(examples: tuple[Example, ...]) -> tuple[np.ndarray, np.ndarray]:
        asked = [e for e in examples if e.question_type == kind and e.answer_type == "open"]
        pixels = load_images([e.image for e in asked], 24)[..., 0].astype(float)
        return pixels.reshape(len(asked), -1), np.array([e.answer for e in asked])

    train, train_answers = known(data.train)
    test, test_answers = known(data.test)
    distances = ((test[:, None] - train[None]) ** 2).sum(axis=-1)
    assert (train_answers[distances.argmin(axis=1)] == test_answers).mean() > 0.8


def test_splits_share_no_image(data: Dataset) -> None:
    images = [{e.image_id for e in examples} for examples in data.splits().values()]
    assert len(set.union(*images)) == sum(map(len, images)) == 540


def test_every_wording_has_each_of_its_answers_equally_often(data: Dataset) -> None:
    for examples in data.splits().values():
        answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for example in examples:
            answers[example.question][example.answer] += 1
        for question, counts in answers.items():
            assert len(counts) > 1, question
            assert len(set(counts.values())) == 1, (question, counts)


def test_a_text_only_model_is_near_the_majority_baseline(data: Dataset) -> None:
    """Multinomial logistic regression on words and pairs of words: at most 10 points above."""

    def terms(question: str) -> list[str]:
        words = question.replace("?", "").split()
        return words + [f"{a} {b}" for a, b in itertools.pairwise(words)]

    vocabulary = sorted({term for e in data.train for term in terms(e.question)})
    answers = sorted({e.answer for e in data.train})

    def bags(examples: tuple[Example, ...]) -> torch.Tensor:
        return torch.tensor(
            [[float(term in terms(e.question)) for term in vocabulary] for e in examples]
        )

    torch.manual_seed(0)
    model = torch.nn.Linear(len(vocabulary), len(answers))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    inputs, targets = bags(data.train), torch.tensor([answers.index(e.answer) for e in data.train])
    for _ in range(150):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        text_only = score(data.test, [answers[i] for i in model(bags(data.test)).argmax(dim=1)])
    baseline = majority_baseline(data.train, data.test)
    assert text_only["overall"] <= baseline["overall"] + 10
    assert text_only["closed"] == 50
    assert text_only["overall"] > baseline["overall"]  # or it would be no measure


def test_words_are_those_of_the_questions_and_answers(data: Dataset) -> None:
    used = " ".join(
        f"{e.question} {e.answer}" for examples in data.splits().values() for e in examples
    )
    assert set(used.replace("?", "").split()) == phantom.words()
    assert used == used.lower()
