from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.storages import JournalStorage

from study.conductor import Conductor
from study.ledger import JOURNAL, Journal, Ledger
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


def test_what_of_optunas_private_parts_a_resumed_study_rests_on(tmp_path: Path) -> None:
    """If this fails with a new Optuna, no study that was killed can be gone on with: a running
    trial is taken up by its private ``_trial_id``, as ``Ledger._remember`` does."""
    folder = str(tmp_path / JOURNAL)
    begun = optuna.create_study(study_name="one", storage=JournalStorage(Journal(folder)))
    begun.ask().report(2.0, 32)
    study = optuna.load_study(study_name="one", storage=JournalStorage(Journal(folder)))
    (running,) = study.get_trials()
    again = optuna.Trial(study, running._trial_id)
    again.report(1.0, 64)
    again.set_user_attr("end", {"outcome": "complete"})
    told = study.tell(again, 1.0)
    assert told.number == running.number and told.value == 1.0
    assert told.intermediate_values == {32: 2.0, 64: 1.0}
    assert told.user_attrs == {"end": {"outcome": "complete"}}


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
