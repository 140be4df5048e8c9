"""Every manifest, in every overlay: what a cluster would refuse, and what it should never be sent.

There is no API server in any package index. What can be known without one is: the schemas of
Kubernetes and of the custom resources, the operator's own rules, and Pod Security's.
"""

import shlex
from collections.abc import Callable
from typing import Any

import pytest

from study.launch import _parser
from tests.infra import kuberay_rules
from tests.infra.manifests import (
    INFRA,
    OVERLAYS,
    SCHEMAS,
    STUDIES,
    Manifest,
    Pod,
    is_custom,
    one,
    pods,
    render,
)

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason='pip install -c constraints.txt -e ".[infra]"'
)
KUBERNETES = ("1.32", "1.36")
"""Oldest and newest that the manifests are held to."""
needs_schemas = pytest.mark.skipif(
    not SCHEMAS.is_dir(),
    reason="KubeRay's and Kueue's definitions are not beside the repository",
)


def test_the_overlays_are_found() -> None:
    assert len(STUDIES) == 5 and len(OVERLAYS) == 7


# What a cluster would refuse.


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_every_manifest(overlay: str, version: str) -> None:
    manifests = render(overlay)
    for manifest in [m for m in manifests if not is_custom(m)]:
        kubernetes_validate.validate(manifest, version, strict=True)
    for pod in pods(manifests):
        kubernetes_validate.validate(pod.manifest(), version, strict=True)


@needs_schemas
@pytest.mark.parametrize("overlay", STUDIES)
def test_the_definitions_take_every_custom_resource(overlay: str) -> None:
    from tests.infra import crds

    custom = [manifest for manifest in render(overlay) if is_custom(manifest)]
    assert custom
    for manifest in custom:
        assert crds.complaints(manifest, SCHEMAS) == []


@pytest.mark.parametrize("overlay", STUDIES)
def test_the_operator_takes_the_job(overlay: str) -> None:
    assert kuberay_rules.complaints(one(render(overlay), "RayJob")) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_named_is_there(overlay: str) -> None:
    manifests = render(overlay)
    there = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    assert len(there) == len(manifests), "two manifests are one object"
    for pod in pods(manifests):
        assert ("ServiceAccount", pod.spec["serviceAccountName"]) in there
        if "priorityClassName" in pod.spec:
            assert ("PriorityClass", pod.spec["priorityClassName"]) in there
        volumes = {volume["name"] for volume in pod.spec.get("volumes", ())}
        claims = [m for m in manifests if m["kind"] == "StatefulSet"]
        volumes |= {
            t["metadata"]["name"] for m in claims for t in m["spec"].get("volumeClaimTemplates", ())
        }
        for volume in pod.spec.get("volumes", ()):
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in there
        for container in pod.containers:
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes


def set_at(path: str, value: Any) -> Callable[[Manifest], None]:
    """A change of one field: ``spec.a.0.b``."""

    def change(manifest: Manifest) -> None:
        *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
        found: Any = manifest
        for step in way:
            found = found[step]
        found[last] = value

    return change


CLUSTER = "spec.rayClusterSpec"
WORKERS = f"{CLUSTER}.workerGroupSpecs.0"


@needs_schemas
@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (f"{CLUSTER}.autoscalerOption", {}, "autoscalerOption"),
        (f"{WORKERS}.minReplica", 1, "minReplica"),
        (f"{WORKERS}.maxReplicas", "many", "'many' is not of type"),
        (f"{WORKERS}.template.spec.containers.0.resource", {}, "resource"),
        (f"{WORKERS}.template.spec.volumes.0.emptyDir.sizeLimits", "1Gi", "sizeLimits"),
        (f"{CLUSTER}.authOptions.mode", "password", "'password' is not one of"),
        (f"{CLUSTER}.headGroupSpec.rayStartParams.num-cpus", 0, "0 is not of type 'string'"),
        ("spec.preRunningDeadlineSeconds", 0, "minimum"),
        ("spec.deletionStrategy", {"deletionRules": []}, "deletionRules"),
        (
            "spec.deletionStrategy",
            {"deletionRules": [{"policy": "DeleteSelf", "condition": {"ttlSeconds": 1}}]},
            "requires either the JobStatus or the JobDeploymentStatus",
        ),
        ("apiVersion", "ray.io/v2", "no definition of RayJob"),
    ],
)
def test_a_wrong_field_of_a_job_is_found(path: str, value: Any, said: str) -> None:
    from tests.infra import crds

    job = one(render("kuberay/overlays/small"), "RayJob")
    set_at(path, value)(job)
    found = crds.complaints(job, SCHEMAS)
    assert len(found) >= 1 and said in found[0], found


@needs_schemas
@pytest.mark.parametrize(
    ("kind", "path", "value", "said"),
    [
        ("ClusterQueue", "spec.cohort", "all", "cohort"),
        ("ClusterQueue", "spec.queueingStrategy", "Fair", "'Fair' is not one of"),
        ("LocalQueue", "spec.clusterQueue", "Not A Name", "does not match"),
        ("ClusterQueue", "spec.resourceGroups.0.coveredResources", [], "[]"),
    ],
)
def test_a_wrong_field_of_a_queue_is_found(kind: str, path: str, value: Any, said: str) -> None:
    from tests.infra import crds

    queue = one(render("kuberay/overlays/queued"), kind)
    set_at(path, value)(queue)
    found = crds.complaints(queue, SCHEMAS)
    assert len(found) >= 1 and said in " ".join(found), found


@pytest.mark.parametrize(
    ("overlay", "kind", "path", "value"),
    [
        ("kuberay/overlays/small", "PodDisruptionBudget", "spec.minAvailabel", 1),
        ("mlflow/overlays/in-cluster", "Deployment", "spec.replica", 2),
        ("mlflow/overlays/in-cluster", "StatefulSet", "spec.replicas", "one"),
        ("mlflow/overlays/in-cluster", "CronJob", "spec.schedules", "@daily"),
        ("mlflow/overlays/managed", "Ingress", "spec.tls", {"hosts": []}),
    ],
)
def test_a_wrong_field_of_kubernetes_is_found(
    overlay: str, kind: str, path: str, value: Any
) -> None:
    manifest = one(render(overlay), kind)
    set_at(path, value)(manifest)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("metadata.name", "1st", "DNS-1035"),
        ("metadata.name", "s" * 48, "at most 47"),
        ("spec.shutdownAfterJobFinishes", False, "ttlSecondsAfterFinished needs"),
        ("spec.clusterSelector", {"ray.io/cluster": "c"}, "backoffLimit does not go with"),
        ("spec.submissionMode", "SidecarMode", "SidecarMode takes no submitterPodTemplate"),
        (f"{CLUSTER}.headGroupSpec.template.spec.restartPolicy", "Always", "restartPolicy Never"),
        (f"{WORKERS}.template.spec.restartPolicy", "OnFailure", "gpu: autoscaler v2 wants"),
        (f"{WORKERS}.minReplicas", 9, "minReplicas 9 is more than maxReplicas 8"),
        (f"{CLUSTER}.headGroupSpec.resources", {"CPU": "0"}, "not in both"),
        (f"{WORKERS}.rayStartParams.labels", "a=b", "rayStartParams['labels'] is refused"),
        (f"{CLUSTER}.rayVersion", "2.50.0", "2.52 or later"),
        (f"{CLUSTER}.rayVersion", "2.55.0", "priority needs Ray 2.56"),
        (f"{CLUSTER}.networkPolicy", {}, "networkPolicy needs a feature gate"),
        (
            "spec.deletionStrategy",
            {"deletionRules": [{"policy": "DeleteWorkers"}]},
            "DeleteWorkers does not go with autoscaling",
        ),
    ],
)
def test_what_the_operator_refuses_is_found(path: str, value: Any, said: str) -> None:
    job = one(render("kuberay/overlays/spot"), "RayJob")
    set_at(path, value)(job)
    found = kuberay_rules.complaints(job)
    assert any(said in line for line in found), found


# What it should never be sent.

UNSAFE: dict[str, Callable[[Pod], bool]] = {
    "the host's network, processes or memory": lambda pod: any(
        pod.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")
    ),
    "a volume that restricted forbids": lambda pod: any(
        not {"emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected"} & set(volume)
        for volume in pod.spec.get("volumes", ())
    ),
    "root": lambda pod: (
        pod.spec["securityContext"].get("runAsNonRoot") is not True
        or pod.spec["securityContext"].get("runAsUser", 0) == 0
    ),
    "no seccomp profile": lambda pod: (
        pod.spec["securityContext"].get("seccompProfile") != {"type": "RuntimeDefault"}
    ),
    "privileges": lambda pod: any(
        c.get("securityContext", {}).get("allowPrivilegeEscalation") is not False
        or c["securityContext"].get("privileged")
        or c["securityContext"].get("capabilities") != {"drop": ["ALL"]}
        for c in pod.containers
    ),
    "a root file system that can be written": lambda pod: any(
        c.get("securityContext", {}).get("readOnlyRootFilesystem") is not True
        for c in pod.containers
    ),
    "a port of the host": lambda pod: any(
        "hostPort" in port for c in pod.containers for port in c.get("ports", ())
    ),
    "no limit of processors, memory or disk": lambda pod: any(
        not {"cpu", "memory", "ephemeral-storage"} <= set(c["resources"].get(kind, ()))
        for c in pod.containers
        for kind in ("requests", "limits")
    ),
    "GPUs asked for otherwise than limited": lambda pod: any(
        "nvidia.com/gpu" in c["resources"]["limits"]
        and c["resources"]["requests"] != c["resources"]["limits"]
        for c in pod.containers
    ),
    "an image without a version": lambda pod: any(
        ":" not in c["image"].rsplit("/")[-1] or c["image"].endswith(":latest")
        for c in pod.containers
    ),
    "a password in plain sight": lambda pod: any(
        "value" in variable
        and any(word in variable["name"] for word in ("PASSWORD", "SECRET", "TOKEN", "ACCESS_KEY"))
        for c in pod.containers
        for variable in c.get("env", ())
    ),
    "a volume without a limit": lambda pod: any(
        "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]
        for volume in pod.spec.get("volumes", ())
    ),
    "the key to the Kubernetes API": lambda pod: (
        pod.spec.get("automountServiceAccountToken") is not False
        and "autoscaler" not in {c["name"] for c in pod.containers}
    ),
}
"""What no pod has -> whether this one has it. The first seven are Pod Security's ``restricted``."""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_is_unsafe(overlay: str) -> None:
    manifests = render(overlay)
    found = [(p.owner, what) for p in pods(manifests) for what, has in UNSAFE.items() if has(p)]
    assert found == []
    space = one(manifests, "Namespace")
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert not [m for m in manifests if m["kind"] in ("Secret", "Role", "ClusterRole")]


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("hostNetwork", True, "the host's network, processes or memory"),
        ("volumes.0", {"name": "scratch", "hostPath": {"path": "/"}}, "a volume that restricted"),
        ("volumes.0", {"name": "scratch", "emptyDir": {}}, "a volume without a limit"),
        ("securityContext.runAsUser", 0, "root"),
        ("securityContext.seccompProfile", {"type": "Unconfined"}, "no seccomp profile"),
        ("containers.0.securityContext.capabilities", {"add": ["IPC_LOCK"]}, "privileges"),
        ("containers.0.securityContext", {}, "a root file system that can be written"),
        ("containers.0.ports", [{"containerPort": 1, "hostPort": 1}], "a port of the host"),
        ("containers.0.resources.limits", {"cpu": 1}, "no limit of processors, memory or disk"),
        ("containers.0.resources.requests.cpu", "1", "GPUs asked for otherwise"),
        ("containers.0.image", "medvlm-study", "an image without a version"),
        ("containers.0.env", [{"name": "RAY_AUTH_TOKEN", "value": "x"}], "a password in plain"),
        ("automountServiceAccountToken", True, "the key to the Kubernetes API"),
    ],
)
def test_an_unsafe_pod_is_found(path: str, value: Any, what: str) -> None:
    (pod,) = [p for p in pods(render("kuberay/overlays/small")) if p.owner.endswith("/gpu")]
    set_at(path, value)(pod.spec)
    assert [key for key, has in UNSAFE.items() if key.startswith(what) and has(pod)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_network_is_closed_but_for_what_must_pass(overlay: str) -> None:
    manifests = render(overlay)
    policies = [m for m in manifests if m["kind"] == "NetworkPolicy"]
    denied = one(policies, "NetworkPolicy", "deny-all")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies:
        for direction, peer in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, ()):
                where = f"{policy['metadata']['name']} {direction}"
                assert rule.get(peer), f"{where} lets everybody pass"
                assert rule.get("ports"), f"{where} opens every port"
                if direction == "ingress":
                    assert all("ipBlock" not in source for source in rule[peer]), where


@pytest.mark.parametrize("overlay", STUDIES)
def test_a_study_survives_what_it_should(overlay: str) -> None:
    manifests = render(overlay)
    job = one(manifests, "RayJob")["spec"]
    head = job["rayClusterSpec"]["headGroupSpec"]
    assert job["backoffLimit"] > 0 and job["ttlSecondsAfterFinished"] > 0
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
    assert "$" not in job["entrypoint"], "it would be expanded in the submitter's pod"
    program, arguments = (words := shlex.split(job["entrypoint"]))[:3], words[3:]
    assert program == ["python", "-m", "study.launch"]
    given = _parser().parse_args(arguments)
    labels = job["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["labels"]
    assert given.address == "auto" and given.name == labels["medvlm-study/study"]
    gpus = sum(group["maxReplicas"] for group in job["rayClusterSpec"]["workerGroupSpecs"])
    assert given.concurrency is None or given.concurrency <= gpus


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


def test_a_second_study_leaves_the_first_as_it_is() -> None:
    """In the same namespace it brings objects of its own, and changes none of the first."""

    def objects(overlay: str) -> dict[tuple[str, str], Manifest]:
        return {(m["kind"], m["metadata"]["name"]): m for m in render(overlay)}

    first, second = objects("kuberay/overlays/small"), objects("kuberay/overlays/second")
    assert {kind for kind, _ in second.keys() - first.keys()} == {"RayJob", "PodDisruptionBudget"}
    shared = first.keys() & second.keys()
    assert {key: first[key] for key in shared} == {key: second[key] for key in shared}
    labels = {
        pod.metadata["labels"]["medvlm-study/study"]
        for overlay in (first, second)
        for pod in pods(list(overlay.values()))
        if "submitter" not in pod.owner
    }
    assert len(labels) == 2, "a budget would count the other's pods"


def test_kueue_admits_what_the_queue_covers() -> None:
    manifests = render("kuberay/overlays/queued")
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
