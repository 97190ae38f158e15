"""A store in a bucket: what pods are given to reach it, and what stands in status. No key is anywhere but in env."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import kubernetes_validate
import pytest
from codetune_api.contracts import DesiredAdapters
from codetune_api.finetune import CheckpointStatus, FineTune
from codetune_api.modeldeployment import ModelDeployment
from codetune_api.project import Project, ProjectStatus
from codetune_operator.reconcile.deletion import reconcile_deletion
from codetune_operator.reconcile.modeldeployment.adapters import resolve_adapters
from codetune_operator.reconcile.observed import ModelDeploymentView, ProjectView
from codetune_operator.reconcile.project import reconcile
from codetune_operator.resources.claims import build_missing_claim
from codetune_operator.resources.finetune.merging import build_merge
from codetune_operator.resources.finetune.training import build_training, pin_dataset
from codetune_operator.resources.modeldeployment.serving import build_serving
from codetune_operator.resources.models import ModelSource, locate_model
from codetune_operator.resources.project.scan import build_scan
from codetune_operator.resources.purge import build_purge
from codetune_operator.resources.store import build_store
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
REVISION = "sha256:" + "a" * 64
S3 = {"endpoint": "http://minio.storage:9000/", "credentialsSecretName": "keys"}
SETTINGS = Settings.model_validate({"store": {"bucket": "s3://models/codetune", "size": "20Gi"}, "s3": S3})
CLAIMS = Settings.model_validate({"s3": S3})
"""The store is a claim, and buckets can be reached all the same."""
CHECKPOINT: Obj = {"name": "step-000002", "step": 2, "digest": "sha256:" + "b" * 64, "bytes": 1, "createdAt": "t"}


def make(kind: str, spec: Obj, **more: Any) -> Obj:
    metadata = {"name": "mine", "namespace": "ns", "uid": "u1", "generation": 1, **more}
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


PROJECT = Project.from_wire(make("Project", {"sources": [{"name": "a", "git": {"url": "https://example.org/a.git"}}]}))
FINETUNE = FineTune.from_wire(make("FineTune", {"projectRef": {"name": "code"}, "baseModel": "hf://org/name"}))
DEPLOYMENT = ModelDeployment.from_wire(make("ModelDeployment", {"baseModel": "hf://org/name"}))


def locate(uri: str, settings: Settings) -> ModelSource:
    model = locate_model(uri, settings)
    assert isinstance(model, ModelSource)
    return model


def build_all(settings: Settings, base: str = "hf://org/name") -> dict[str, Obj]:
    """One of each pod that the operator makes: its spec, by what it does."""
    model = locate(base, settings)
    checkpoint = CheckpointStatus.model_validate({**CHECKPOINT, "uri": f"{settings.store.uri}/ns/x"})
    desired = DesiredAdapters()
    serving = build_serving(DEPLOYMENT, desired, model, settings, operator_key=b"k" * 32, max_rank=16, answers=True)
    built = {
        "scan": build_scan(PROJECT, settings)[-1],
        "train": build_training(FINETUNE, pin_dataset(FINETUNE, REVISION), model, settings)[-1],
        "merge": build_merge(FINETUNE, checkpoint, "best", model, settings)[-1],
        "purge": build_purge(FINETUNE, settings)[-1],
        "server": serving[-1],
        "store": build_store("ns", [PROJECT], settings, b"k" * 32)[-1],
    }
    for obj in built.values():
        kubernetes_validate.validate(obj, "1.36", strict=True)
    return {name: obj["spec"]["template"]["spec"] for name, obj in built.items()}


def containers(pod: Obj) -> list[Obj]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def env(container: Obj) -> Obj:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


@pytest.mark.parametrize("name", ["scan", "train", "merge", "purge", "server", "store"])
def test_every_container_reaches_the_bucket_by_the_variables_of_s3_clients(name: str) -> None:
    for container in containers(build_all(SETTINGS)[name]):
        found = env(container)
        assert found["CODETUNE_BUCKET"] == "s3://models/codetune"
        assert found["CODETUNE_NAMESPACE"] in ("ns", {"fieldRef": {"fieldPath": "metadata.namespace"}})
        assert found["AWS_ENDPOINT_URL_S3"] == "http://minio.storage:9000"
        assert found["AWS_REGION"] == "us-east-1"
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            assert found[key] == {"secretKeyRef": {"name": "keys", "key": key}}
        token = {"name": "keys", "key": "AWS_SESSION_TOKEN", "optional": True}
        assert found["AWS_SESSION_TOKEN"] == {"secretKeyRef": token}
        assert len(container["env"]) == len(found), "no variable twice"


@pytest.mark.parametrize("name", ["scan", "train", "merge", "purge", "server", "store"])
def test_a_pods_own_copy_lies_in_a_volume_that_goes_with_it(name: str) -> None:
    volumes = {volume["name"]: volume for volume in build_all(SETTINGS)[name]["volumes"]}
    assert volumes["store"] == {"name": "store", "emptyDir": {"sizeLimit": "20Gi"}}
    fast = SETTINGS.model_copy(update={"store": SETTINGS.store.model_copy(update={"storage_class_name": "fast"})})
    volumes = {volume["name"]: volume for volume in build_all(fast)[name]["volumes"]}
    spec = volumes["store"]["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert spec == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "20Gi"}},
    }


@pytest.mark.parametrize(
    ("expected", "base"),
    [
        pytest.param({"server": ["server"]}, "hf://org/name", id="a model of the hub"),
        pytest.param(
            {"train": ["fetch"], "merge": ["fetch"], "server": ["fetch", "server"]},
            "s3://models/qwen",
            id="a model in a bucket",
        ),
    ],
)
def test_with_claims_only_those_reach_buckets_who_may_have_to(expected: Obj, base: str) -> None:
    pods = build_all(CLAIMS, base)
    found = {
        name: [each["name"] for each in containers(pod) if "AWS_REGION" in env(each)] for name, pod in pods.items()
    }
    assert {name: those for name, those in found.items() if those} == expected
    assert not [pod for pod in pods.values() for each in containers(pod) if "CODETUNE_BUCKET" in env(each)]


def test_without_buckets_nothing_is_said_of_them() -> None:
    assert "AWS_" not in json.dumps(build_all(Settings()))


def test_an_own_authority_is_mounted_for_those_who_speak_s3() -> None:
    known = Settings.model_validate({"s3": {**S3, "caConfigMapName": "authority"}})
    pods = build_all(known)
    (server,) = pods["server"]["containers"]
    assert env(server)["AWS_CA_BUNDLE"] == "/codetune/s3-authorities/ca.crt"
    mount = {"name": "s3-authorities", "mountPath": "/codetune/s3-authorities", "readOnly": True}
    assert mount in server["volumeMounts"]
    volume = {"name": "s3-authorities", "configMap": {"name": "authority"}}
    assert [name for name, pod in pods.items() if volume in pod["volumes"]] == ["server"]


def test_an_identity_of_the_pod_takes_the_place_of_keys() -> None:
    identity = Settings.model_validate(
        {"store": {"bucket": "s3://models"}, "s3": {"region": "eu-central-1", "serviceAccountName": "codetune-runs"}}
    )
    for pod in build_all(identity).values():
        assert pod["serviceAccountName"] == "codetune-runs"
        assert pod["automountServiceAccountToken"] is False
        for container in containers(pod):
            assert env(container)["AWS_REGION"] == "eu-central-1"
            assert not {"AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL_S3"} & env(container).keys()


def test_a_bucket_needs_no_claim() -> None:
    assert build_missing_claim(None, "ns", SETTINGS) == ()
    assert [claim["kind"] for claim in build_missing_claim(None, "ns", CLAIMS)] == ["PersistentVolumeClaim"]
    assert [obj["kind"] for obj in reconcile(ProjectView(PROJECT), SETTINGS, NOW).apply] == ["ConfigMap", "Job"]


def test_an_upload_is_refused_with_its_field_and_a_cure() -> None:
    sources = [{"name": "a", "git": {"url": "https://example.org/a.git"}}, {"name": "mine", "upload": {}}]
    view = ProjectView(Project.from_wire(make("Project", {"sources": sources})))
    plan = reconcile(view, SETTINGS, NOW)
    assert plan.apply == ()
    assert isinstance(plan.status, ProjectStatus)
    assert plan.status.failure is not None
    assert plan.status.failure.reason == "UnsupportedSource"
    (told,) = [entry for entry in plan.status.conditions if entry.type == "Stalled"]
    assert "Source 'mine' is an upload" in told.message
    assert "sources[].git, archive or volume" in told.message
    assert reconcile(view, CLAIMS, NOW).apply, "with a claim it is scanned"


def test_status_names_artifacts_by_their_place_in_the_bucket() -> None:
    pinned = pin_dataset(FINETUNE, REVISION, SETTINGS.store.uri)
    assert pinned.uri == f"s3://models/codetune/ns/projects/code/{'a' * 64}"


def test_a_deleted_project_is_purged_from_the_bucket_too() -> None:
    marks = {"deletionTimestamp": "t", "finalizers": ["codetune.dev/artifacts"]}
    gone = Project.from_wire(make("Project", {"sources": [{"name": "a", "upload": {}}]}, **marks))
    view = ProjectView(gone)

    assert reconcile_deletion(view, CLAIMS, NOW).finalizer == "Remove", "there is no store"
    plan = reconcile_deletion(view, SETTINGS, NOW)
    assert (plan.finalizer, [obj["kind"] for obj in plan.apply]) == ("Keep", ["ConfigMap", "Job"])
    ending = replace(view, namespace_terminating=True)
    plan = reconcile_deletion(ending, SETTINGS, NOW)
    assert plan.finalizer == "Remove", "a namespace never hangs"
    assert "s3://models/codetune/ns/projects/mine" in plan.events[0].message, "what is left is said"
    assert not reconcile_deletion(replace(ending, claim={"kind": "x"}), CLAIMS, NOW).events, "a claim goes too"


def test_a_purge_that_failed_names_what_is_left() -> None:
    marks = {"deletionTimestamp": "t", "finalizers": ["codetune.dev/artifacts"]}
    gone = Project.from_wire(make("Project", {"sources": [{"name": "a", "upload": {}}]}, **marks))
    _, job = build_purge(gone, SETTINGS)
    job["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
    plan = reconcile_deletion(ProjectView(gone, jobs=(job,)), SETTINGS, NOW)
    assert plan.finalizer == "Remove"
    assert "s3://models/codetune/ns/projects/mine" in plan.events[0].message


@pytest.mark.parametrize(
    ("expected", "uri", "settings"),
    [
        pytest.param(("S3", "models/codetune/ns/x"), "s3://models/codetune/ns/x", SETTINGS, id="in the store"),
        pytest.param(("S3", "others/adapters/x"), "s3://others/adapters/x", SETTINGS, id="in another bucket"),
        pytest.param(("S3", "others/x"), "s3://others/x/", CLAIMS, id="in a bucket beside claims"),
        pytest.param((None, "ns/x"), "pvc://codetune-artifacts/ns/x", CLAIMS, id="in a claim"),
    ],
)
def test_an_adapter_by_uri_is_found(expected: tuple[str | None, str], uri: str, settings: Settings) -> None:
    spec = {"baseModel": "hf://org/name", "adapters": [{"name": "x", "uri": uri}]}
    deployment = ModelDeployment.from_wire(make("ModelDeployment", spec))
    (found,) = resolve_adapters(deployment.spec, {}, settings)
    assert found.desired is not None
    assert (found.desired.root, found.desired.path) == expected


@pytest.mark.parametrize(
    ("words", "uri", "settings"),
    [
        pytest.param("no `s3` in its settings", "s3://others/x", Settings(), id="buckets are out of reach"),
        pytest.param(
            "write s3://models/codetune/PATH", "pvc://codetune-artifacts/x", SETTINGS, id="no claims any more"
        ),
        pytest.param("not in the namespace's artifact store", "s3://others/../x", SETTINGS, id="out of the bucket"),
    ],
)
def test_an_adapter_that_can_t_be_reached_is_refused_with_a_cure(words: str, uri: str, settings: Settings) -> None:
    spec = {"baseModel": "hf://org/name", "adapters": [{"name": "x", "uri": uri}]}
    deployment = ModelDeployment.from_wire(make("ModelDeployment", spec))
    (found,) = resolve_adapters(deployment.spec, {}, settings)
    assert (found.reason, found.desired) == ("AdapterUnsupported", None)
    assert words in found.message


def test_a_checkpoint_of_the_store_before_is_refused_by_name() -> None:
    spec = {"baseModel": "hf://org/name", "adapters": [{"name": "x", "fineTuneRef": {"name": "mine"}}]}
    deployment = ModelDeployment.from_wire(make("ModelDeployment", spec))
    status = {"checkpoints": [{**CHECKPOINT, "uri": "pvc://codetune-artifacts/ns/x"}], "bestCheckpoint": "step-000002"}
    run = FineTune.from_wire({**make("FineTune", FINETUNE.spec.to_wire()), "status": {**status, "phase": "Succeeded"}})
    view = ModelDeploymentView(deployment, finetunes={"mine": run})
    (found,) = resolve_adapters(deployment.spec, view.finetunes, SETTINGS)
    assert found.reason == "AdapterUnsupported"
    assert "pvc://codetune-artifacts/ns/x" in found.message
