"""``--budget``: how much a study may spend is read, and what it means for its trials."""

import pytest

from search_spaces.layernorm_vs_lora import SPACE
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.config.spending_limit import SpendingLimit, parse
from trainables.errors import BadInput


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (None, SpendingLimit()),
        ("500trials", SpendingLimit(trials=500)),
        ("2h", SpendingLimit(seconds=7200.0)),
        ("90 min", SpendingLimit(seconds=5400.0)),
        ("20gpu-h", SpendingLimit(device_seconds=72_000.0)),
        ("0.5gpu-h", SpendingLimit(device_seconds=1800.0)),
    ],
)
def test_what_it_says(text: str | None, allowed: SpendingLimit) -> None:
    assert parse(text) == allowed


@pytest.mark.parametrize("text", ["2", "h", "-2h", "0h", "2 weeks", "1.5trials", "gpu-h"])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(BadInput, match="--budget"):
        parse(text)


def test_what_it_means_for_the_number_of_trials() -> None:
    def defined(allowance: str, trials: int | None = None) -> StudyDefinition:
        given = Settings(space="layernorm_vs_lora", allowance=allowance, trials=trials)
        return StudyDefinition.parse(given)

    assert defined("40trials").budget.trials == 40
    assert defined("2h").budget.trials > 1000
    both = defined("2h", 30)
    assert both.budget.trials == 30 and [*both.space.arms] == [*SPACE.arms]
    with pytest.raises(BadInput, match="give one"):
        defined("40trials", 30)
