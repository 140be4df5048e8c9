"""Why the workers of a gang ended. Gangs for real are in ``tests/whole_studies``."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
from ray.train import WorkerGroupError
from torch.distributed import HashStore, ProcessGroupGloo, TCPStore

from study.execution.gang_pool import hangs


def test_a_worker_that_waits_in_vain_has_not_failed_itself() -> None:
    store, second = HashStore(), timedelta(seconds=1)
    with ThreadPoolExecutor(2) as threads:
        first, _ = threads.map(lambda rank: ProcessGroupGloo(store, rank, 2, second), range(2))
    shared = TCPStore("127.0.0.1", 0, is_master=True, timeout=second)
    for exchange in (
        lambda: first.allreduce([torch.ones(3)]).wait(),
        lambda: shared.get("what the second rank never says"),
        lambda: ProcessGroupGloo(shared, 0, 2, second),
    ):
        with pytest.raises(RuntimeError) as waited:
            exchange()
        assert hangs(WorkerGroupError("", {0: waited.value})), waited.value
    own = ValueError("the second has not come, since it could not")
    assert not hangs(WorkerGroupError("", {0: waited.value, 1: own}))
    assert not hangs(WorkerGroupError("", {0: own}))
