"""How a cluster is divided among hosts, and hosts among trials."""

import pytest

from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.planning.cluster_partition import ClusterPartition, divide
from trainables.errors import BadInput

LAPTOP = [{"CPU": 4.0}]
GPUS = [{"CPU": 16.0, "GPU": 2.0, "memory": 128.0 * 2**30}] * 2


def of(found: ClusterPartition) -> tuple[int, int, int]:
    """Hosts, trials on each, trials at a time."""
    return found.hosts, found.trials_per_host, found.concurrency


def test_a_processor_takes_one_trial_unless_told_otherwise() -> None:
    assert of(divide(LAPTOP, None, shared=False)) == (4, 1, 4)
    assert of(divide(LAPTOP, None, shared=False, predicting=True)) == (4, 1, 4)
    assert of(divide(LAPTOP, 2, shared=False)) == (2, 1, 2)
    assert of(divide(LAPTOP, 12, shared=False)) == (4, 3, 12)
    assert divide(LAPTOP, 1, shared=False).cpus == 4
    assert divide(LAPTOP, 1, shared=False).kind == "cpu"


def test_a_cuda_device_takes_as_many_as_fit() -> None:
    found = divide(GPUS, None, shared=True, predicting=True)
    assert (of(found), found.kind) == ((4, 8, 32), "cuda")
    assert (found.cpus, found.gpus, found.host_gib) == (8, 1, 64)
    assert of(divide(GPUS, None, shared=True)) == (4, 1, 4), "their memory is not looked at"
    assert of(divide(GPUS, 8, shared=True)) == (4, 2, 8)


def test_whose_costs_decide_has_its_device_alone() -> None:
    assert of(divide(GPUS, None, shared=True, alone=True, predicting=True)) == (4, 1, 4)
    with pytest.raises(BadInput, match=r"1 to 4 \(4 CUDA devices, which no trials share where"):
        divide(GPUS, 5, shared=True, alone=True)
    for given, decide in [
        (Settings(space="smoke", under="memory<8GiB"), True),
        (Settings(space="smoke", objective="score,seconds"), True),
        (Settings(space="smoke", objective="score,parameters"), False),
    ]:
        assert StudyDefinition.parse(given).costs_decide is decide


def test_a_trial_of_several_devices_shares_none() -> None:
    assert of(divide(GPUS, None, shared=True, per_trial=2)) == (4, 1, 2)


@pytest.mark.parametrize(
    ("concurrency", "per_trial", "said"),
    [
        (33, 1, "--concurrency must be 1 to 32 (4 processors, 8 trials each), not 33"),
        (0, 1, "--concurrency must be 1 to 32 (4 processors, 8 trials each), not 0"),
        (3, 2, "--concurrency must be 1 to 2 (4 processors, 2 for each trial), not 3"),
        (None, 5, "--devices-per-trial must be 1 to 4 (all processors), not 5"),
    ],
)
def test_more_than_there_is_is_refused(concurrency: int | None, per_trial: int, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        divide(LAPTOP, concurrency, shared=False, per_trial=per_trial)
    assert str(refused.value) == said


def test_an_accelerator_that_nobody_has_tried_takes_one_trial() -> None:
    found = divide(LAPTOP, None, shared=False, predicting=True, untried="mps")
    assert of(found) == (1, 1, 1)
    assert (found.cpus, found.gpus, found.predicting) == (4, 0, False)
    found = divide(GPUS, 1, shared=True, untried="xpu")
    assert of(found) == (1, 1, 1) and (found.cpus, found.gpus, found.kind) == (16, 1, "xpu")
    with pytest.raises(BadInput, match=r"^--concurrency must be 1 on mps, .* not 2; STUDY_DEVICE"):
        divide(LAPTOP, 2, shared=False, untried="mps")
    with pytest.raises(BadInput, match=r"^--devices-per-trial must be 1 on xpu, .* not 2; "):
        divide(GPUS, None, shared=False, per_trial=2, untried="xpu")


def test_a_cluster_without_workers_is_asked_for_some() -> None:
    assert of(divide([], 12, shared=True)) == (12, 1, 12), "as many devices as trials"
    assert of(divide([], 3, shared=True, per_trial=2)) == (6, 1, 3)
    assert divide([], 3, shared=True, predicting=True).predicting
    with pytest.raises(BadInput, match="no worker"):
        divide([], None, shared=True)
