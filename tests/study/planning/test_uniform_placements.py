"""Placements from options alone: what each arm's batches and optimizer allow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces.declare import Arm, Choice, Space, method, training
from study.config.definition import StudyDefinition
from study.config.deployment import Deployment
from study.config.settings import Settings
from study.planning.arm_placements import ArmPlacements, uniform_placements
from study.storage.study_folder import StudyFolder
from trainables.engine.training_settings import TORCH_OF
from trainables.errors import BadInput


def placed(tmp_path: Path, devices: int | None, **trained: object) -> ArmPlacements:
    arms = {
        "plain": Arm(everywhere=method("lora"), lr=1e-3),
        "trained": Arm(everywhere=method("lora"), lr=1e-3, training=training(**trained)),
    }
    definition = StudyDefinition.parse(Settings(space="smoke"))
    definition = replace(definition, space=Space(question="?", arms=arms))
    folder = StudyFolder(storage=str(tmp_path), name="study")
    deployment = Deployment(study_folder=folder, tracking_uri="", devices_per_trial=devices)
    return uniform_placements(definition, deployment, trials_per_host=1, cuda=False)


def test_there_is_room_for_the_largest_batch(tmp_path: Path) -> None:
    found = placed(tmp_path, None, batch_size=Choice(64, 8))
    assert found.by_arm["trained"].micro_batch == 64
    assert found.untuned == found.by_arm["plain"] and found.by_arm["plain"].micro_batch == 32
    assert placed(tmp_path, 2, batch_size=Choice(64, 8)).by_arm["trained"].micro_batch == 32


def test_devices_that_cannot_share_every_batch_evenly_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--devices-per-trial 2 cannot share batches of 5 questions"):
        placed(tmp_path, 2, batch_size=Choice(5, 8))


@pytest.mark.needs("torch", TORCH_OF["muon"])
def test_a_gang_divides_only_what_the_optimizer_lets_it(tmp_path: Path) -> None:
    found = placed(tmp_path, 2, optimizer=Choice("adamw", "muon"))
    assert [found.by_arm[arm].deepspeed for arm in ("plain", "trained")] == ["2", "off"]
