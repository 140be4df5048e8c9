"""What Ray Tune is told of trials. It runs them for real in tests of hosts and whole studies."""

from collections.abc import Callable

from ray.tune.experiment import Trial

from study.execution.ray_tune import TuneScheduler, TuneSearcher
from study.planning.cluster_partition import ClusterPartition
from study.search.scheduler import StudyScheduler
from study.worker.orders import TrialReport
from tests.study.made_up import MadeUpHost, hosts_alone

PARTITION = ClusterPartition(
    hosts=1, cpus=1, gpus=0, trials_per_host=1, concurrency=1, shared=False
)


def test_tune_holds_of_a_trial_only_its_last_report(begin: Callable[..., StudyScheduler]) -> None:
    scheduler = TuneScheduler(TuneSearcher(begin(), hosts_alone(MadeUpHost, None, PARTITION)))
    scheduler.keeping = True  # there are no clients to be kept
    trial, report = Trial("no trainable", stub=True), TrialReport()
    scheduler.on_trial_add(None, trial)
    trial.update_last_result({"report": report, "time_total_s": 1.0})
    assert trial.run_metadata.last_result["report"] is report
    assert not trial.metric_analysis and not trial.metric_n_steps
    assert trial.get_json_state() == ("{}", "{}")
