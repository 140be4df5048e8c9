from collections.abc import Callable
from pathlib import Path

from study.conductor import Conductor
from study.ledger import JOURNAL, Ledger
from study.records import Kind, TrialSpec
from tests.study.made_up import play_all


def test_it_reads_back_what_it_wrote(begin: Callable[..., Conductor], tmp_path: Path) -> None:
    conductor = play_all(begin())
    assert Ledger(tmp_path / "study").records == conductor.ledger.records


def test_a_line_cut_off_by_a_kill_is_ignored(
    begin: Callable[..., Conductor], tmp_path: Path
) -> None:
    conductor = play_all(begin(), most=3)
    with (tmp_path / "study" / JOURNAL).open("a") as journal:
        journal.write('{"op_code": 5, "trial')
    assert Ledger(tmp_path / "study").records == conductor.ledger.records
    assert play_all(begin()).done


def test_a_spec_survives_json_and_its_id_names_its_content() -> None:
    spec = TrialSpec(
        kind=Kind.SEARCH,
        arm="lora",
        parameters={"lora.rank": 8, "lr": 1e-3},
        recipe={"vision": {"method": "lora", "rank": 8}},
        lr=1e-3,
        seed=0,
        max_examples=64,
        batch_size=32,
        stops=(32, 64),
        base="made up",
    )
    assert TrialSpec.of(spec.plain()) == spec
    assert TrialSpec.of(spec.plain()).id == spec.id
    assert TrialSpec.of(spec.plain() | {"seed": 1}).id != spec.id
