"""What a cluster would refuse, in every overlay.

There is no API server in any package index. What can be known without one is: the schemas of
Kubernetes and of the custom resources, the operator's own rules, and that what is named is there.
"""

from typing import Any

import pytest

from tests.infra import kuberay_rules
from tests.infra.manifests import (
    FILES,
    FOLDERS,
    OVERLAYS,
    SCHEMAS,
    STUDIES,
    is_custom,
    one,
    pods,
    render,
    set_at,
    with_shared,
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
    assert len(STUDIES) == 6 and len(OVERLAYS) == 9


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("part", (*FOLDERS, *FILES))
def test_kubernetes_takes_every_manifest(part: str, version: str) -> None:
    manifests = render(part)
    for manifest in [m for m in manifests if not is_custom(m)]:
        kubernetes_validate.validate(manifest, version, strict=True)
    for pod in pods(manifests):
        kubernetes_validate.validate(pod.manifest(), version, strict=True)


@needs_schemas
@pytest.mark.parametrize("part", (*STUDIES, "kuberay/queues"))
def test_the_definitions_take_every_custom_resource(part: str) -> None:
    from tests.infra import crds

    custom = [manifest for manifest in render(part) if is_custom(manifest)]
    assert custom
    for manifest in custom:
        assert crds.complaints(manifest, SCHEMAS) == []


@pytest.mark.parametrize("overlay", STUDIES)
def test_the_operator_takes_the_job(overlay: str) -> None:
    assert kuberay_rules.complaints(one(render(overlay), "RayJob")) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_named_is_there(overlay: str) -> None:
    manifests = with_shared(overlay)
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

    queue = one(render("kuberay/queues"), kind)
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


def test_a_sidecar_that_submits_takes_no_template() -> None:
    job = one(render("kuberay/overlays/small"), "RayJob")
    set_at("spec.submissionMode", "SidecarMode")(job)
    assert kuberay_rules.complaints(job) == []
    set_at("spec.submitterPodTemplate", {})(job)
    (said,) = kuberay_rules.complaints(job)
    assert said.startswith("SidecarMode takes no submitterPodTemplate")
