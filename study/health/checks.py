"""The checks of ``study.doctor``: storage, MLflow, Ray and every node."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from study.storage.object_store import ObjectStore, is_store
from study.storage.paths import MLFLOW_ARTIFACTS, real_path
from study.tracking.mlflow_store import default_uri
from trainables.devices.kinds import SHARED, VARIABLE, backend
from trainables.errors import BadInput

if TYPE_CHECKING:
    from study.health.nodes import Node, NodeReport

FREE_GIB = (2.0, 20.0)
"""Free disk space in GiB below which it is a problem, and below which it is a warning."""
SKEW_SECONDS = (30.0, 2.0)
"""Difference of clocks in seconds above which it is a problem, and above which it is a warning."""
SLOW_SECONDS = 10.0
"""Seconds for a run in MLflow above which there is a warning."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """Result of one check."""

    what: str
    """Name of what was checked."""
    observation: str
    """Observation in one line."""
    advice: str = ""
    """Advice on what to do; empty if all is well."""
    stops: bool = True
    """Whether a study would fail or be wrong, and not only be slow or puzzling."""

    @property
    def mark(self) -> str:
        """``ok``, ``warning`` or ``problem``: the first column of the output."""
        return "ok" if not self.advice else "problem" if self.stops else "warning"


def examine(address: str | None, storage: str, tracking_uri: str | None) -> Iterator[CheckResult]:
    """Run all checks, each after those that it builds on."""
    yield _storage(storage)
    yield _mlflow(storage, tracking_uri)
    from study.config import deployment
    from study.execution import cluster
    from study.health import nodes

    try:
        deployment.check_address(address)
        cluster.connect(address)
    except BadInput as error:
        yield CheckResult(
            what="Ray", observation=str(error), advice="start it, or give another --address"
        )
        return
    found = nodes.nodes()
    yield _room(found)
    reports = {node: nodes.ask(node, storage) for node in found}
    for node, report in reports.items():
        yield from _node(node, report)
    told = {node: r for node, r in reports.items() if not isinstance(r, str)}
    yield from _versions(told)
    yield from _clocks(told)
    if len(told) > 1:
        yield _passing(list(told), storage)
    kind = next((report.kind for node, report in told.items() if node.gpus), "cpu")
    yield from _adding(list(told), kind)


def _storage(storage: str) -> CheckResult:
    """Write a file to the storage."""
    what = "storage"
    try:
        if is_store(storage):
            ObjectStore(storage).check()
        else:
            folder = Path(storage)
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"x")
    except BadInput as error:
        advice = "see that the bucket is there, and AWS_ENDPOINT_URL and the credentials are right"
        return CheckResult(what=what, observation=str(error), advice=advice)
    except OSError as error:
        failure = f"cannot write to --storage {storage}: {error.strerror}"
        return CheckResult(
            what=what, observation=failure, advice="give a folder that this user can write"
        )
    return CheckResult(what=what, observation=f"{storage} can be written from here")


def _mlflow(storage: str, uri: str | None) -> CheckResult:
    """Make a run in MLflow and read it back."""
    from study.tracking import mlflow_runs, mlflow_store

    if uri is None and is_store(storage):
        advice = "give --tracking-uri: MLflow's database cannot lie in an object store"
        return CheckResult(what="MLflow", observation="no server is named", advice=advice)
    shown = uri or default_uri(Path(storage))
    try:
        mlflow_store.check(shown)
        took = mlflow_runs.probe(shown, Path(storage) / MLFLOW_ARTIFACTS)
    except BadInput as error:
        advice = "see that it runs and that MLFLOW_TRACKING_USERNAME and _PASSWORD are right"
        return CheckResult(what="MLflow", observation=str(error), advice=advice)
    return CheckResult(
        what="MLflow",
        observation=f"{shown}: a run with a metric and a file came back, {took:.1f} seconds",
        advice=""
        if took < SLOW_SECONDS
        else "studies write in the background; still, look at its database",
        stops=False,
    )


def _room(found: list[Node]) -> CheckResult:
    """Count nodes, processors and GPUs."""
    cpus, gpus = sum(n.cpus for n in found), sum(n.gpus for n in found)
    return CheckResult(
        what="Ray",
        observation=f"{_count(len(found), 'node')}, {_count(cpus, 'processor')}, "
        f"{_count(gpus, 'GPU')}",
        advice=""
        if cpus or gpus
        else "no trial can run: start workers (a cluster that scales itself starts them when asked:"
        " give studies --concurrency)",
        stops=False,
    )


def _node(node: Node, report: NodeReport | str) -> Iterator[CheckResult]:
    """Judge the report of one node: accelerators, home folder and free disk space."""
    if isinstance(report, str):
        yield CheckResult(
            what=node.name,
            observation=f"does not answer: {report}",
            advice="the same image, or the same packages and PYTHONPATH, on all nodes; "
            "otherwise look at its raylet.out",
        )
        return
    has = f"{_count(node.cpus, 'processor')}"
    if node.gpus:
        has += f", {'; '.join(report.devices) or 'no GPU that torch sees'}"
    advice = f"Ray counts {_count(node.gpus, 'GPU')}, torch {len(report.devices)}: "
    blind = len(report.devices) < node.gpus
    unused = report.kind in SHARED and len(report.devices) > node.gpus
    if blind:
        advice += "look at the driver (nvidia-smi), and at torch.version.cuda"
    elif unused:
        advice += "studies use those that Ray counts (ray start --num-gpus)"
    yield CheckResult(
        what=node.name, observation=has, advice=advice * (blind or unused), stops=blind
    )
    if report.devices and report.kind not in SHARED:
        yield CheckResult(
            what=f"{node.name} {report.kind}",
            observation=f"{'; '.join(report.devices)}: nobody has tried {report.kind}",
            advice=f"one trial at a time runs there; {VARIABLE}=cpu computes on processors",
            stops=False,
        )
    if report.home:
        yield CheckResult(
            what=f"{node.name} home",
            observation=f"cannot be written: {report.home}",
            advice="set HOME, or XDG_CACHE_HOME: decoded images are kept there",
            stops=False,
        )
    for folder, free in report.free_gib.items():
        if free < max(FREE_GIB):
            yield CheckResult(
                what=f"{node.name} disk",
                observation=f"{free:.1f} GiB free in {folder}",
                advice="make room: checkpoints and decoded images are kept there",
                stops=free < min(FREE_GIB),
            )


def _versions(reports: dict[Node, NodeReport]) -> Iterator[CheckResult]:
    """Compare the versions on all nodes with those on this machine."""
    if not reports:
        return
    from study.health import nodes

    here = nodes.versions()
    differ = [
        f"{name} is {report.versions[name]} on {node.name} and {here[name]} here"
        for node, report in reports.items()
        for name in here
        if report.versions[name] != here[name]
    ]
    advice = "the same image or checkout everywhere, and constraints.txt installed: the same trial "
    advice += "gives other numbers otherwise"
    same = ", ".join(f"{name} {here[name]}" for name in ("python", "torch", "ray"))
    if differ:
        yield from (
            CheckResult(what="versions", observation=line, advice=advice) for line in differ
        )
    else:
        yield CheckResult(what="versions", observation=f"the same everywhere: {same}, ...")


def _clocks(reports: dict[Node, NodeReport]) -> Iterator[CheckResult]:
    """Compare the clocks of all nodes with that of this machine."""
    worst = 0.0
    for node, report in reports.items():
        skew = abs(report.clock - report.asked_at) - report.doubt_seconds
        worst = max(worst, skew)
        if skew > min(SKEW_SECONDS):
            yield CheckResult(
                what="clocks",
                observation=f"{node.name} is {skew:.0f} seconds off",
                advice="let NTP set it: times in MLflow are wrong, and S3 refuses requests",
                stops=skew > max(SKEW_SECONDS),
            )
    if reports and worst <= min(SKEW_SECONDS):
        yield CheckResult(
            what="clocks", observation=f"at most {max(worst, 0.01):.2f} seconds apart"
        )


def _passing(told: list[Node], storage: str) -> CheckResult:
    """Let nodes pass files to each other through the shared storage."""
    from study.health import nodes

    where = storage if is_store(storage) else str(real_path(storage))
    wrong = nodes.pass_on(told, where, uuid.uuid4().hex)
    advice = (
        "give all nodes the same credentials and AWS_ENDPOINT_URL"
        if is_store(storage)
        else "mount the same folder at the same place on all nodes, or give --storage s3://..."
    )
    if wrong:
        return CheckResult(what="shared storage", observation="; ".join(wrong), advice=advice)
    return CheckResult(what="shared storage", observation="each node reads what each node wrote")


def _adding(told: list[Node], kind: str) -> Iterator[CheckResult]:
    """Let the devices of all nodes, which are of one kind, add a number up, as the devices of one
    trial do."""
    from study.health import nodes
    from study.worker.gang_worker import LINK

    if not any(n.gpus for n in told) and sum(n.cpus > 0 for n in told) < 2:
        return
    exchange = backend(kind).upper()
    if taken := nodes.gpus_in_use(told):
        yield CheckResult(
            what=exchange,
            observation=f"not tried: {_count(taken, 'GPU')} in use",
            advice="look again when no study runs",
            stops=False,
        )
        return
    error = nodes.add_up(told)
    yield CheckResult(
        what=exchange,
        observation=error or "all add up to the same sum",
        advice=f"{LINK.format(exchange)}; without it no trial can use several devices"
        if error
        else "",
        stops=False,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
