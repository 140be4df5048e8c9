"""What ``kubectl delete -k`` of a folder of infra/ takes with it, and what it leaves."""

import itertools
import re

import pytest

from tests.infra.manifests import FOLDERS, INFRA, STUDIES, Manifest, one, pods, render

Object = tuple[str, str, str | None]


def objects(part: str) -> dict[Object, Manifest]:
    """(kind, name, namespace) -> what ``kubectl delete -k`` would name to the API server."""
    found = {}
    for manifest in render(part):
        metadata = manifest["metadata"]
        found[manifest["kind"], metadata["name"], metadata.get("namespace")] = manifest
    return found


def study_of(overlay: str) -> str:
    """The name of an overlay's study, by which all pods of it are labelled."""
    labels = {pod.metadata["labels"].get("medvlm-study/study") for pod in pods(render(overlay))}
    (name,) = labels - {None}
    return str(name)


@pytest.mark.parametrize("overlay", STUDIES)
def test_to_delete_a_study_deletes_what_is_its_own(overlay: str) -> None:
    found, name = objects(overlay), study_of(overlay)
    assert {kind for kind, _, _ in found} == {"RayJob", "PodDisruptionBudget"}
    for _, given, _ in found:
        assert given == name or given.startswith(f"{name}-"), "another study's could be it"
    assert not found.keys() & (objects("kuberay/shared") | objects("kuberay/queues")).keys()


def test_two_studies_share_no_object() -> None:
    by_study: dict[str, set[Object]] = {}
    for overlay in STUDIES:
        by_study.setdefault(study_of(overlay), set()).update(objects(overlay))
    assert len(by_study) > 1
    for one_study, another in itertools.combinations(by_study.values(), 2):
        assert not one_study & another


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_folder_takes_a_namespace_or_a_volume(folder: str) -> None:
    """Those are files of their own, and what they hold cannot be made again by applying them."""
    found = objects(folder)
    assert not {kind for kind, _, _ in found} & {"Namespace", "PersistentVolumeClaim", "Secret"}
    for manifest in found.values():
        if manifest["kind"] == "StatefulSet":
            kept = manifest["spec"]["persistentVolumeClaimRetentionPolicy"]
            assert kept == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_every_folder_that_is_applied_is_looked_at() -> None:
    """But for those that others build on: a base, and components."""
    there = {str(file.parent.relative_to(INFRA)) for file in INFRA.rglob("kustomization.yaml")}
    assert set(FOLDERS) == {part for part in there if not re.search("/(base|components)", part)}


def test_only_a_head_that_scales_its_cluster_reaches_the_kubernetes_api() -> None:
    chosen = one(render("kuberay/shared"), "NetworkPolicy", "autoscaler")["spec"]["podSelector"]
    for overlay in STUDIES:
        cluster = one(render(overlay), "RayJob")["spec"]["rayClusterSpec"]
        labels = cluster["headGroupSpec"]["template"]["metadata"]["labels"]
        head = {"ray.io/node-type": "head", **labels}
        reaches = chosen["matchLabels"].items() <= head.items()
        assert reaches == cluster.get("enableInTreeAutoscaling", False), overlay
