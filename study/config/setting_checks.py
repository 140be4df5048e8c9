"""Checks settings of a study by themselves, and pairs of them that do not go together. Neither the
space nor the model or data are known here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from study.config import search_methods
from study.config.budget import ALLOCATE
from study.config.goals import Limit
from study.config.settings import ACCURACY, PRECISIONS, Settings
from trainables.errors import BadInput, unknown
from trainables.training.regime import CHOOSE, Regime

LEAST = {
    "trials": 1,
    "max_examples": 1,
    "seed": 0,
    "seeds": 1,
    "searches": 1,
    "splits": 1,
    "image_size": 1,
    "beams": 1,
    "questions_per_image": 1,
}
"""Setting -> the smallest number that it may be."""
MOST = {
    "trials": 1_000_000,
    "seeds": 500,
    "searches": 100,
    "splits": 20,
    "image_size": 8_192,
    "beams": 64,
}
"""Setting -> the largest number that it may be: more is a slip of the finger."""


def check(settings: Settings) -> None:
    """Check what ``division`` and ``regime`` do not check.

    Raises:
        BadInput: a number is out of its range, or two settings do not go together.
    """
    for name, least in LEAST.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise BadInput(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    for name, most in MOST.items():
        value = getattr(settings, name)
        if value is not None and value > most:
            raise BadInput(f"--{name.replace('_', '-')} must be at most {most:,}, got {value}")
    _check_splits(settings)
    if settings.epochs is not None:
        if not 0 < settings.epochs < math.inf:
            raise BadInput(f"--epochs must be more than 0, got {settings.epochs:g}")
        if settings.max_examples is not None:
            raise BadInput(
                f"--epochs {settings.epochs:g} and --max-examples {settings.max_examples}: give one"
            )
    if not 0 < settings.margin < 100:
        raise BadInput(f"--margin must be more than 0 and less than 100, got {settings.margin:g}")
    if settings.measure != ACCURACY:
        _check_measure(settings.measure)
    if settings.precision not in PRECISIONS:
        raise unknown("value of --precision", settings.precision, PRECISIONS)


def check_number_of_splits(splits: int) -> None:
    """Check that an interval can be made of so many splits.

    Raises:
        BadInput: it cannot be.
    """
    if splits == 2:
        raise BadInput(
            "--splits must be 1, or 3 or more, got 2: of two splits no interval says anything"
        )
    if splits > MOST["splits"]:
        raise BadInput(f"--splits must be at most {MOST['splits']}, got {splits}")


def _check_splits(settings: Settings) -> None:
    """Check that the data can be divided as often as was asked, and that the answer can be made of
    these divisions.

    Raises:
        BadInput: they cannot be.
    """
    splits = settings.splits
    check_number_of_splits(splits)
    if splits == 1:
        return
    if settings.split != "by_image":
        raise BadInput(
            f"--splits {splits} divides the data by image, and --split {settings.split} as they "
            "were published: add --split by_image"
        )
    others = {
        f"--searches {settings.searches}": settings.searches > 1,
        f"--ood {settings.ood}": settings.ood is not None,
        f"--measure {settings.measure}": settings.measure != ACCURACY,
    }
    for other in (name for name, there in others.items() if there):
        raise BadInput(f"--splits {splits} does not go with {other}: leave one away")


def _check_measure(name: str) -> None:
    """Check that there is a measure to decide by; measures need numpy, so it is imported late.

    Raises:
        BadInput: there is none.
    """
    from trainables.measures.common.deciding import deciding

    deciding(name)


def division(settings: Settings, objectives: Sequence[str], limits: Sequence[Limit]) -> str:
    """Division of the trials among arms.

    Raises:
        BadInput: there is no such division, or it does not go with another option.
    """
    if settings.allocate not in (search_methods.AUTO, *ALLOCATE):
        raise unknown("value of --allocate", settings.allocate, list(ALLOCATE))
    allocate = settings.allocate
    if allocate == search_methods.AUTO:
        allocate = "floor" if objectives or limits else "tuned"
    elif (objectives or limits) and allocate == "tuned":
        costs = f"--objective {settings.objective}" if objectives else f"--under {settings.under}"
        raise BadInput(
            f"--allocate tuned goes by the loss alone, and {costs} has costs too; give another "
            "--allocate"
        )
    if settings.tuned_to is not None and not 0 < settings.tuned_to < 100:
        raise BadInput(
            f"--tuned-to must be more than 0 and less than 100, got {settings.tuned_to:g}"
        )
    if settings.tuned_to is not None and allocate != "tuned":
        raise BadInput(f"--tuned-to needs --allocate tuned, got --allocate {allocate}")
    return allocate


def regime(settings: Settings) -> Regime:
    """Training settings that all trials share.

    Raises:
        BadInput: one is out of its range, or two do not go together.
    """
    if not 0 <= settings.label_smoothing < 1:
        raise BadInput(f"--label-smoothing must be in [0, 1), got {settings.label_smoothing}")
    if settings.questions_per_image > 1 and settings.group_by_length:
        raise BadInput(
            f"--questions-per-image {settings.questions_per_image} and --group-by-length: give one"
        )
    if settings.choose not in CHOOSE:
        raise unknown("value of --choose", settings.choose, CHOOSE)
    return Regime(
        label_smoothing=settings.label_smoothing,
        questions_per_image=settings.questions_per_image,
        group_by_length=settings.group_by_length,
        choose=settings.choose,
    )
