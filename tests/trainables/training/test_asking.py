"""Trials with a prompt of their own, and how they answer questions with options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from tests.trainables.training.trials import config, losses
from trainables.data.common.dataset import Example
from trainables.data.common.wording import DEFAULT_ASKING, Asking
from trainables.engine.training_settings import TrainingSettings
from trainables.errors import BadInput
from trainables.measures.common.options import named
from trainables.training.frozen_features import Features
from trainables.training.likeliest import likelihoods
from trainables.training.regime import Regime
from trainables.training.trial import Trial
from trainables.workload import Workload

PROMPT = "where is the lesion ? {question}"
OPTIONS = (("ct", "mri of the head"), ("left", "right", "the liver and the chest"))


def chosen(example: Example, number: int) -> Example:
    """The example as a multiple-choice question, every third one excepted."""
    if number % 3 == 2:
        return example
    options = OPTIONS[number % 3]
    return replace(example, options=options, answer=("B", options[0])[number // 3 % 2])


@pytest.fixture(scope="module")
def optional(workload: Workload) -> Workload:
    """A workload with questions of two, three and no options."""
    splits: dict[str, Any] = {
        split: tuple(chosen(example, n) for n, example in enumerate(examples))
        for split, examples in workload.dataset.splits().items()
    }
    dataset = replace(workload.dataset, **splits)
    # Asked anew, since the rows are of the questions without options.
    return replace(workload, dataset=dataset, asking=Asking(prompt=PROMPT)).asked(DEFAULT_ASKING)


def test_a_trials_own_prompt_is_that_of_all_that_it_does(workload: Workload) -> None:
    own = Trial(workload, config(workload, training=TrainingSettings(prompt=PROMPT)))
    studys = Trial(workload.asked(Asking(prompt=PROMPT)), config(workload))
    plain = Trial(workload, config(workload))
    assert losses(own, 3) == losses(studys, 3) != losses(plain, 3)
    assert own.validation_loss() == studys.validation_loss() != plain.validation_loss()
    assert own.answers("test") == studys.answers("test")
    assert own.answers("test", workload) == own.answers("test"), "other data are asked alike"
    assert own.workload is workload.asked(Asking(prompt=PROMPT)), "texts are tokenised once"


def test_the_question_is_in_the_prompt(workload: Workload) -> None:
    rows, asked = workload.rows["train"], workload.asked(Asking(prompt=PROMPT)).rows["train"]
    assert all(len(a.question) > len(r.question) for a, r in zip(asked, rows, strict=True))
    assert [(a.answer, a.image) for a in asked] == [(r.answer, r.image) for r in rows]


def test_options_are_asked_and_are_another_question(workload: Workload, optional: Workload) -> None:
    rows, asked = workload.rows["test"], optional.rows["test"]
    longer = [len(a.question) > len(r.question) for a, r in zip(asked, rows, strict=True)]
    assert longer == [bool(example.options) for example in optional.dataset.test]


def likelihood(workload: Workload, trial: Trial, question: int, answer: str) -> float:
    """Log-likelihood of an answer to a test question, computed by itself."""
    model, example = workload.model, workload.dataset.test[question]
    row = model.tokenize(
        question=example.question,
        answer=answer,
        image=workload.rows["test"][question].image,
        wording=trial.asking.wording(example.options),
    )
    batch = model.collate([row], workload.images_NSSC).to(workload.device)
    with torch.no_grad():
        return -float(model.losses(trial.losses.network, batch, summed=True)[0])


@pytest.mark.parametrize("prompt", [None, PROMPT])
def test_the_likeliest_option_is_chosen(optional: Workload, prompt: str | None) -> None:
    asked = config(
        optional,
        training=TrainingSettings(prompt=prompt),
        regime=Regime(choose="likelihood"),
    )
    trial = Trial(optional, asked)
    losses(trial, 4)
    found, examples = trial.answers("test"), optional.dataset.test
    for question, options in optional.options("test").items():
        every = {o.answer: likelihood(optional, trial, question, o.answer) for o in options}
        assert found[question] == max(every, key=lambda answer: every[answer])
        assert len({round(value, 3) for value in every.values()}) > 1
        assert named(found[question], examples[question]) is not None
    for size in (1, 2, 5):  # fewer rows at once than a question has options, too
        assert Trial(optional, asked, evaluation_batch=size).answers("test") == (
            Trial(optional, asked).answers("test")
        )
    written = Trial(optional, replace(asked, regime=Regime())).answers("test")
    rest = [n for n, example in enumerate(examples) if not example.options]
    untrained = Trial(optional, asked).answers("test")
    assert [untrained[n] for n in rest] == [written[n] for n in rest]


def test_options_of_the_same_tokens_are_equally_likely(optional: Workload) -> None:
    """``B`` and ``C`` are unknown words; each is in another batch."""
    trial, options = Trial(optional, config(optional)), optional.options("test")
    question = next(n for n, of in options.items() if [o.answer for o in of] == ["A", "B", "C"])
    same = [o for o in options[question] if o.answer in "BC"]
    assert same[0].tokens == same[1].tokens
    (found,) = likelihoods(
        trial.losses.network,
        trial.workload,
        "test",
        [question],
        options,
        partial(trial.batch, "test"),
        2,
    )
    assert found[1] == found[2] != found[0]


def test_options_are_written_as_the_answer_is(optional: Workload) -> None:
    found = {n: [o.answer for o in options] for n, options in optional.options("test").items()}
    assert found == {
        0: ["A", "B"],
        1: ["A", "B", "C"],
        3: [*OPTIONS[0]],
        4: [*OPTIONS[1]],
        6: ["A", "B"],
    }


def test_frozen_features_choose_as_the_whole_model_does(
    optional: Workload, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = optional.model
    still = {slot for stage in model.stages for slot in stage.slots}
    tuning = {slot: {"method": "lora"} for slot in model.slots if slot not in still}
    asked = config(
        optional,
        recipe=type(config(optional).recipe).from_plain(tuning),
        training=TrainingSettings(prompt=PROMPT),
        regime=Regime(choose="likelihood"),
    )
    trial = Trial(optional, asked, features=Features(optional, precision="fp32"))
    assert trial.features_done == len(model.stages)
    assert trial.answers("test") == Trial(optional, asked).answers("test")


def test_an_image_is_encoded_once_for_all_options(
    optional: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(optional, config(optional, regime=Regime(choose="likelihood")))
    seen: list[tuple[int, int]] = []
    whole = Workload.batch

    def noted(self: Workload, split: str, indices: Sequence[int]) -> Any:
        batch = whole(self, split, indices)
        seen.append((len(batch.pixels_UCSS), len(batch.image_B)))
        return batch

    monkeypatch.setattr(Workload, "batch", noted)
    trial.answers("test")
    options = optional.options("test")
    images = {optional.rows["test"][question].image for question in options}
    different = {(n, option.tokens) for n, of in options.items() for option in of}
    assert (len(images), len(different)) in seen


def test_a_way_to_choose_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown choose 'likelyhood'; did you mean 'likelihood'"):
        Regime(choose="likelyhood")
