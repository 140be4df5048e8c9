"""A trial that is trained by hand goes on when MLflow does not."""

import time
from pathlib import Path

from study.storage.paths import MLFLOW_ARTIFACTS
from study.tracking.mlflow_by_hand import HandRun
from study.tracking.mlflow_runs import COLOUR
from study.tracking.mlflow_store import default_uri
from study.trials.colours import arm_colours
from study.trials.record import Outcome, Rung
from study.trials.spec import Kind, TrialSpec


def spec() -> TrialSpec:
    return TrialSpec(
        kind=Kind.SEARCH,
        arm="lora",
        parameters={"lr": 1e-3},
        recipe={"decoder": {"method": "lora"}},
        lr=1e-3,
        seed=0,
        max_examples=960,
        batch_size=32,
        stops=(320, 960),
        base="base",
    )


def rung(examples_seen: int) -> Rung:
    return Rung(
        examples_seen=examples_seen,
        validation_loss=1.0,
        train_loss=2.0,
        seconds=1.0,
        reported_at=time.time(),
    )


def test_what_mlflow_refuses_stops_the_writing_and_nothing_else(tmp_path: Path) -> None:
    arms = ["layernorm", "lora"]
    run = HandRun(default_uri(tmp_path), "smoke", arms, spec(), "fp32", base_bits=4)
    experiment = run._runs.client.get_experiment(run._runs.experiment_id)
    assert experiment.artifact_location.endswith(f"{tmp_path.name}/{MLFLOW_ARTIFACTS}")
    run.stepped(32, 1.5)
    run.reported(rung(320))
    assert run.error == ""
    recorded = run._runs.client.get_run(run.id)
    assert recorded.data.metrics["validation_loss"] == 1.0
    assert recorded.data.params["base_bits"] == "4"
    assert recorded.data.tags[COLOUR] == arm_colours(arms)["lora"]
    run._runs.client.delete_run(run.id)  # by another user, meanwhile
    run.reported(rung(960))
    assert "\n" not in run.error and run.error
    run.ended(Outcome.COMPLETE, "", {"seconds": 1.0})
    assert run._runs.client.get_run(run.id).info.status == "RUNNING"
