"""What infra/README.md's first study needs to start, and that nothing but its own end ends it."""

import re
from collections.abc import Iterable

import pytest

from tests.infra.manifests import INFRA, STUDIES, Manifest, Pod, one, pods, render, set_at

FIRST = ("kuberay/overlays/first", "mlflow/overlays/first")
UNITS = {"": 1.0, "m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
LIMIT = {
    "cpu": 7,
    "memory": 26 * UNITS["Gi"],
    "ephemeral-storage": 24 * UNITS["Gi"],
    "nvidia.com/gpu": 1,
}
"""Of a node of 8 processors, 32 GiB and a GPU, some 7.9 processors and 29 GiB can be asked for;
DNS, the network plugin, the device plugin, ingress and KubeRay's operator have the rest."""

Amounts = dict[str, float]
"""Of each resource; processors, bytes or devices."""


def number(quantity: str | int) -> float:
    """A quantity as Kubernetes writes it, in processors, bytes or devices."""
    found = re.fullmatch(r"([0-9.]+)(m|Ki|Mi|Gi)?", str(quantity))
    assert found is not None, quantity
    return float(found[1]) * UNITS[found[2] or ""]


def total(parts: Iterable[Amounts]) -> Amounts:
    found: Amounts = {}
    for part in parts:
        for resource, amount in part.items():
            found[resource] = found.get(resource, 0) + amount
    return found


def requests(container: Manifest) -> Amounts:
    return {key: number(value) for key, value in container["resources"]["requests"].items()}


def asked_by(pod: Pod) -> Amounts:
    """What the scheduler reserves on a node for one such pod: for all containers at once, with the
    init containers that stay; or, if it is more, for an init container and those before it that
    stay."""
    staying: list[Amounts] = []
    steps: list[Amounts] = []
    for container in pod.spec.get("initContainers", ()):
        steps.append(total([*staying, requests(container)]))
        if container.get("restartPolicy") == "Always":
            staying.append(requests(container))
    steps.append(total([*staying, *map(requests, pod.spec["containers"])]))
    return {key: max(step.get(key, 0) for step in steps) for key in steps[-1]}


def asked(*parts: str) -> Amounts:
    """What all pods of those parts ask for together."""
    every = [pod for part in parts for pod in pods(render(part)) for _ in range(pod.copies)]
    return total(map(asked_by, every))


def test_the_first_study_and_its_mlflow_fit_one_node() -> None:
    """With the job that makes MLflow's tables and the one that dumps them, should both run then."""
    found = asked(*FIRST)
    assert set(found) == set(LIMIT)
    assert {key: value for key, value in found.items() if value > LIMIT[key]} == {}


def test_an_init_container_counts_where_it_asks_for_more() -> None:
    (server,) = [p for p in pods(render(FIRST[1])) if p.owner == "Deployment/mlflow"]
    assert asked_by(server)["cpu"] == 1
    set_at("initContainers.0.resources.requests.cpu", "3")(server.spec)
    assert asked_by(server)["cpu"] == 3
    set_at("initContainers.0.restartPolicy", "Always")(server.spec)
    assert asked_by(server)["cpu"] == 4


def test_the_first_study_wants_no_volume() -> None:
    for pod in pods(render("kuberay/overlays/first")):
        kept = [volume for volume in pod.spec["volumes"] if "persistentVolumeClaim" in volume]
        assert not kept, pod.owner


def test_readme_says_what_the_overlays_ask_for() -> None:
    text = (INFRA / "README.md").read_text()
    for name in ("first", "in-cluster", "managed"):
        found = asked(f"mlflow/overlays/{name}")
        said = f"{found['cpu']:g} processors, {found['memory'] / 2**30:g} GiB |"
        assert re.search(rf"^\| `{name}` \|.*\| {re.escape(said)}$", text, re.MULTILINE), said
    first = asked("kuberay/overlays/first")
    gib = [f"{first[key] / 2**30:g} GiB of" for key in ("memory", "ephemeral-storage")]
    assert f"{first['cpu']:g} processors, {gib[0]} memory and {gib[1]} disk" in text


@pytest.mark.parametrize("overlay", STUDIES)
def test_no_end_of_a_log_stream_ends_a_study(overlay: str) -> None:
    """In KubeRay's other modes a pod or a container follows the log, and where it ends while the
    job runs, the RayJob fails and its healthy cluster is deleted. ``ray job logs --follow`` of Ray
    2.60 exits with 1 when the stream is cut, and with 0 when it is closed in good order: then the
    submitter is done, and no submitterConfig.backoffLimit helps."""
    job = one(render(overlay), "RayJob")["spec"]
    assert job["submissionMode"] == "HTTPMode"
    assert not {"submitterConfig", "submitterPodTemplate"} & set(job), "nobody would read it"


def test_readme_says_how_long_a_study_waits_for_room() -> None:
    """Each retry has a new cluster and the whole of preRunningDeadlineSeconds for it."""
    text = (INFRA / "README.md").read_text()
    for overlay in STUDIES:
        job = one(render(overlay), "RayJob")["spec"]
        hours = (1 + job["backoffLimit"]) * job["preRunningDeadlineSeconds"] / 3600
        assert f"never finds room is `FAILED` after {hours:g} hours" in text
