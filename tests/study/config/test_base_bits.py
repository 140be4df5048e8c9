"""A base in four bits is for arms that leave its weights as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from study import launch, plan, train
from study.config import spaces
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.planning.plan_tables import bits_text
from tests.trainables.quantised import needs_bitsandbytes
from trainables.errors import BadInput
from trainables.models.common.quantisation import BaseBits, SlotBits

needs_bitsandbytes()
MINE = """
from search_spaces.declare import *
def arm(**slots): return Arm(lr=LogUniform(1e-4, 1e-2), **slots)
SPACE = Space(question="?", arms={
    "lora": arm(everywhere=method("lora")),
    "connected": arm(connector=method("full"), decoder=method("lora")),
    "attentive": arm(everywhere=method("attention")),
})
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return str(tmp_path / "mine.py")


def test_a_slot_that_an_arm_trains_stays_whole_for_all(mine: str) -> None:
    asked = Settings(space=mine, arm="lora,connected", base_bits=4)
    found = StudyDefinition.parse(asked)
    assert found.workload.base_bits == BaseBits(whole=("connector",))
    assert StudyDefinition.parse(Settings(space=mine)).workload.base_bits is None
    slots = [
        SlotBits(slot="vision", quantised=12, left=()),
        SlotBits(slot="connector", quantised=0, left=("linear_1", "linear_2")),
        SlotBits(slot="decoder", quantised=14, left=("lm_head",)),
    ]
    assert bits_text(slots, BaseBits(whole=("connector",)), found.space) == (
        "in 4 bits (NF4): 12 of 12 linear layers of vision; connector as it is, since arm "
        "'connected' trains its weights (full); 14 of 15 linear layers of decoder (not lm_head); "
        "embeddings, heads, norms and convolutions as they are"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"arm": None},
            r"leaves no weights to train, .* \(attention\); .* out: --arm lora,connected$",
        ),
        ({"arm": "attentive"}, r"\(attention\); leave it away$"),
        ({"base_bits": 8}, "a question's loss would depend on its batch; give 4$"),
        ({"base_bits": 2}, "--base-bits must be 4, got 2$"),
        ({"deepspeed": "3"}, "--deepspeed 3 divides the base's weights among devices"),
        ({"deepspeed": "3-offload"}, "--deepspeed 3-offload divides the base's weights"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    settings: dict[str, Any], said: str, mine: str
) -> None:
    asked = {"space": mine, "arm": "lora,connected", "base_bits": 4, **settings}
    with pytest.raises(BadInput, match=said) as error:
        StudyDefinition.parse(Settings(**asked))
    assert "\n" not in str(error.value)


def test_the_commands_refuse_it_before_anything_is_written(
    mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bits = ["--space", mine, "--base-bits", "4"]
    storage = tmp_path / "studies"
    assert launch.main([*bits, "--storage", str(storage)]) == 2
    assert plan.main(bits) == 2
    assert train.main([*bits, "--arm", "attentive"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 3 and not storage.exists()


def test_methods_that_train_weights_are_known() -> None:
    found = spaces.weight_trainers(spaces.load("intrinsic"))
    assert found == {"everywhere": "arm 'attention' trains its weights (attention)"}


def test_the_plan_counts_values_and_predicts_less_memory(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown, rows = [], []
    for more in ([], ["--base-bits", "4"]):
        asked = ["--space", "smoke", "--arm", "layernorm", *more]
        assert plan.main(asked) == 0
        shown.append(" ".join(capsys.readouterr().out.split()))
        assert plan.main([*asked, "--batch-size", "2", "--json"]) == 0
        rows.append(json.loads(capsys.readouterr().out))
    said = (
        "base in 4 bits (NF4): 16 of 16 linear layers of vision; 20 of 20 linear layers of fusion; "
        "20 of 22 linear layers of decoder (not cls.predictions.transform.dense, "
        "cls.predictions.decoder); embeddings"
    )
    assert said in shown[1] and "base in" not in shown[0]
    for before, after in zip(*rows, strict=True):
        assert before["total_parameters"] == after["total_parameters"]
        assert before["memory"]["weights_gib"] > 3 * after["memory"]["weights_gib"]
        assert before["memory"]["optimizer_gib"] == after["memory"]["optimizer_gib"]
