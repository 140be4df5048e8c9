"""Identities of trials and studies, which a setting that is added later must not change."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import pytest

from study.config.settings import Settings
from study.planning.provenance import REGIME, SETTINGS
from study.trials.spec import Kind, TrialSpec, off_default
from trainables.training.regime import Regime

SPEC = TrialSpec(
    kind=Kind.SEARCH,
    arm="lora",
    parameters={"lora.rank": 8, "lr": 0.01},
    recipe={"vision": {"method": "lora", "rank": 8}},
    lr=0.01,
    seed=0,
    max_examples=64,
    batch_size=8,
    stops=(32, 64),
    base="made up",
)


@dataclass(frozen=True, kw_only=True)
class LaterSpec(TrialSpec):
    noise: float = 0.01


@dataclass(frozen=True, kw_only=True)
class LaterRegime(Regime):
    noise: str = "none"


@dataclass(frozen=True, kw_only=True)
class LaterSettings(Settings):
    tokenizer: str = "the model's"


def test_an_id_is_the_same_in_every_version() -> None:
    assert SPEC.id == "5c3565d802ba"


def test_a_new_setting_changes_no_id_unless_it_is_off_its_default() -> None:
    later = LaterSpec(**asdict(SPEC))
    assert later.id == SPEC.id
    assert replace(later, noise=0.1).id != SPEC.id


def test_training_settings_join_the_id_where_they_are_off_their_defaults() -> None:
    assert replace(SPEC, training={}).id == SPEC.id
    trained = replace(SPEC, training={"warmup": 0.0, "schedule": "linear", "label_smoothing": 0.1})
    assert trained.id not in (SPEC.id, replace(SPEC, training={"warmup": 0.1}).id)
    assert TrialSpec.from_plain(json.loads(json.dumps(trained.plain()))).id == trained.id
    before = {name: value for name, value in SPEC.plain().items() if name != "training"}
    assert TrialSpec.from_plain(before) == SPEC, "a journal that is older than the field"
    config = trained.config(Regime(label_smoothing=0.2))
    assert (config.training.schedule, config.training.warmup) == ("linear", 0.0)
    assert config.label_smoothing == 0.1
    assert SPEC.config(Regime(label_smoothing=0.2)).label_smoothing == 0.2


@pytest.mark.parametrize(
    ("value", "later", "always"),
    [
        (Regime(), LaterRegime(), REGIME),
        (Settings(space="smoke"), LaterSettings(space="smoke"), SETTINGS),
    ],
)
def test_nor_is_it_recorded(
    value: Regime | Settings, later: LaterRegime | LaterSettings, always: tuple[str, ...]
) -> None:
    recorded = {name: held for name, held in asdict(value).items() if name in always}
    assert off_default(later, always) == off_default(value, always) == recorded
    changed = replace(later, **{[*asdict(later)][-1]: "another"})
    assert set(off_default(changed, always)) - set(asdict(value)) == {[*asdict(later)][-1]}
