"""Small trials that are really trained: of a random LLaVA, on a few questions, within a second."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from study.planning.placement import uniform_placement
from study.storage.study_folder import StudyFolder
from study.trials.spec import Kind, TrialSpec
from study.worker.host_config import HostConfig
from study.worker.orders import AdvanceTrial, TrialReport
from study.worker.resident_trials import ResidentTrials
from tests.trainables import made_llava
from tests.trainables.data.small import jsonl
from trainables.training.regime import Regime
from trainables.workload import WorkloadConfig

STOPS = (8, 16, 24)
BATCH = 4


def config(folder: Path) -> HostConfig:
    """Configuration of hosts; model, data and the study are in ``folder``."""
    (folder / "data").mkdir()
    jsonl.write(folder / "data")
    return HostConfig(
        workload=WorkloadConfig(
            model=str(made_llava.write(folder / "model", initializer_range=0.2)),
            data="jsonl",
            data_root=str(folder / "data"),
            split="by_image",
        ),
        ood_workloads={},
        study_folder=StudyFolder(storage=folder, name="study"),
        regime=Regime(),
        trials_per_host=1,
    )


def spec(
    method: str = "lora", *, lr: float = 1e-2, seed: int = 0, batch_size: int = BATCH
) -> TrialSpec:
    return TrialSpec(
        kind=Kind.SEARCH,
        arm=method,
        parameters={},
        recipe={s: {"method": method, "everywhere": True} for s in ("vision", "decoder")}
        | {"connector": {"method": "frozen"}},
        lr=lr,
        seed=seed,
        max_examples=STOPS[-1],
        batch_size=batch_size,
        stops=STOPS,
        base="made up",
    )


def alone(config: HostConfig, trial: TrialSpec) -> list[TrialReport]:
    """A trial's reports without Ray, on one device."""
    one = uniform_placement(
        devices=1, deepspeed="off", batch_size=trial.batch_size, sharing=1, reason=""
    )
    residents = ResidentTrials(
        replace(config, study_folder=StudyFolder(storage=config.study_folder.path, name="alone"))
    )
    order, reports = AdvanceTrial(spec=trial, placement=one), list[TrialReport]()
    while not (reports and reports[-1].done):
        reply = Future[TrialReport]()
        residents.advance(order, reply)
        while not reply.done():
            residents.step()
        reports.append(reply.result())
        order = order.after(reports[-1])
    return reports


def losses(reports: list[TrialReport]) -> list[float]:
    """At its rungs."""
    return [report.rung.validation_loss for report in reports if report.rung]
