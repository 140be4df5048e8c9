"""What a study needs of its overlay: to survive, to start, and to get its GPUs."""

import shlex

import pytest
import yaml

from study.launch import _parser
from tests.infra.manifests import INFRA, STUDIES, Pod, one, pods, render, with_shared
from tests.infra.unsafe import UNSAFE


@pytest.mark.parametrize("overlay", STUDIES)
def test_a_study_survives_what_it_should(overlay: str) -> None:
    manifests = render(overlay)
    job = one(manifests, "RayJob")["spec"]
    head = job["rayClusterSpec"]["headGroupSpec"]
    assert job["backoffLimit"] > 0 and job["ttlSecondsAfterFinished"] > 0
    assert job["activeDeadlineSeconds"] > job["preRunningDeadlineSeconds"] > 0
    assert head["rayStartParams"]["num-cpus"] == "0", "trials would run on the head"
    groups = job["rayClusterSpec"]["workerGroupSpecs"]
    for group in (head, *groups):
        (container,) = group["template"]["spec"]["containers"]
        environment = {v["name"]: v.get("value") for v in container["env"]}
        drain = int(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] or 0)
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > drain > 0
        assert {"livenessProbe", "readinessProbe"} <= set(container)
        assert "exec $KUBERAY_GEN_RAY_START_CMD" in container["args"][0]
        annotations = group["template"]["metadata"]["annotations"]
        assert annotations["ray.io/overwrite-container-cmd"] == "true"
        shm = {v["name"]: v for v in group["template"]["spec"]["volumes"]}["shm"]["emptyDir"]
        objects = int(group["rayStartParams"]["object-store-memory"])
        assert shm["medium"] == "Memory" and gib(shm["sizeLimit"]) * 2**30 > objects
        assert gib(shm["sizeLimit"]) < gib(container["resources"]["limits"]["memory"])
    budget = one(manifests, "PodDisruptionBudget")["spec"]
    for label, value in budget["selector"]["matchLabels"].items():
        labels = {"ray.io/node-type": "head", **head["template"]["metadata"]["labels"]}
        assert labels[label] == value


@pytest.mark.parametrize("overlay", STUDIES)
def test_the_command_is_one_that_the_launcher_takes(overlay: str) -> None:
    job = one(render(overlay), "RayJob")["spec"]
    assert "$" not in job["entrypoint"], "a shell on the head would expand it"
    program, arguments = (words := shlex.split(job["entrypoint"]))[:3], words[3:]
    assert program == ["python", "-m", "study.launch"]
    given = _parser().parse_args(arguments)
    labels = job["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["labels"]
    assert given.address == "auto" and given.name == labels["medvlm-study/study"]
    gpus = sum(group["maxReplicas"] for group in job["rayClusterSpec"]["workerGroupSpecs"])
    assert getattr(given, "concurrency", 0) <= gpus


def test_gpus_come_and_go_where_they_should() -> None:
    small = one(render("kuberay/overlays/small"), "RayJob")["spec"]["rayClusterSpec"]
    scales = one(render("kuberay/overlays/gpu-autoscale"), "RayJob")["spec"]["rayClusterSpec"]
    spot = one(render("kuberay/overlays/spot"), "RayJob")["spec"]["rayClusterSpec"]
    assert not small.get("enableInTreeAutoscaling")
    (group,) = small["workerGroupSpecs"]
    assert group["minReplicas"] == group["replicas"] == group["maxReplicas"] > 0
    assert scales["enableInTreeAutoscaling"] and spot["enableInTreeAutoscaling"]
    for group in (*scales["workerGroupSpecs"], *spot["workerGroupSpecs"]):
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
    demand, cheap = spot["workerGroupSpecs"]
    assert cheap["priority"] > demand["priority"]
    assert cheap["template"]["spec"]["nodeSelector"] == {"medvlm-study/capacity": "spot"}
    assert "nodeSelector" not in demand["template"]["spec"]


def closed_pod(file: str) -> Pod:
    """One that is applied by hand; it is valid, and as closed as those of the overlays."""
    # It comes with the tests' packages, and not with a user's.
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    (manifest,) = yaml.safe_load_all((INFRA / file).read_text())
    kubernetes_validate.validate(manifest, "1.32", strict=True)
    pod = Pod(f"Pod/{file}", manifest["metadata"], manifest["spec"])
    assert not [what for what, has in UNSAFE.items() if has(pod)]
    return pod


def test_the_pod_that_fills_the_volume_is_as_closed_as_the_others() -> None:
    pod = closed_pod("kuberay/fill-data.yaml")
    there = with_shared("kuberay/overlays/small")
    claim = one(there, "PersistentVolumeClaim")["metadata"]
    assert pod.metadata["namespace"] == claim["namespace"]
    (volume,) = pod.spec["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": claim["name"]}
    assert one(there, "ServiceAccount", pod.spec["serviceAccountName"])
    images = {container["image"] for other in pods(there) for container in other.containers}
    assert {container["image"] for container in pod.containers} == images


def test_the_pod_that_brings_a_dump_back_sees_what_the_nightly_one_wrote() -> None:
    pod = closed_pod("mlflow/restore.yaml")
    there = render("mlflow/overlays/in-cluster")
    nightly = next(other for other in pods(there) if "postgres-backup" in other.owner)
    label = "medvlm-study/database"
    assert pod.metadata["labels"][label] == nightly.metadata["labels"][label], "it is let in"
    (ours,), (theirs,) = pod.containers, nightly.containers
    assert ours["image"] == theirs["image"]
    assert [v["name"] for v in ours["env"]] == ["PGHOST", "PGUSER", "PGPASSWORD"]
    assert all(variable in theirs["env"] for variable in ours["env"])
    assert pod.spec["volumes"] == nightly.spec["volumes"]


def test_kueue_admits_what_the_queue_covers() -> None:
    manifests = with_shared("kuberay/overlays/queued")
    job, queue = one(manifests, "RayJob"), one(manifests, "ClusterQueue")["spec"]
    local = one(manifests, "LocalQueue")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == local["metadata"]["name"]
    assert job["metadata"]["namespace"] == local["metadata"]["namespace"]
    assert local["spec"]["clusterQueue"] == one(manifests, "ClusterQueue")["metadata"]["name"]
    assert job["spec"]["suspend"] and not job["spec"]["rayClusterSpec"].get(
        "enableInTreeAutoscaling"
    ), "Kueue refuses a RayJob that scales itself"
    (group,) = queue["resourceGroups"]
    flavors = {f["name"] for f in group["flavors"]}
    assert flavors == {m["metadata"]["name"] for m in manifests if m["kind"] == "ResourceFlavor"}
    for pod in pods(manifests):
        for container in pod.containers:
            assert set(container["resources"]["requests"]) <= set(group["coveredResources"])


def test_versions_are_those_that_are_pinned() -> None:
    pinned = dict(
        line.split("==")
        for line in (INFRA.parent / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    for overlay in STUDIES:
        cluster = one(render(overlay), "RayJob")["spec"]["rayClusterSpec"]
        assert cluster["rayVersion"] == pinned["ray"]


def gib(quantity: str) -> float:
    assert quantity.endswith("Gi"), quantity
    return float(quantity.removesuffix("Gi"))
