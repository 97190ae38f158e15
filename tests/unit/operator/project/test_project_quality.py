"""A Project with `files.quality`: its scan gets a model as training does, and a model's trouble is the Project's."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from codetune_api.contracts import FetchConfig, ScanConfig
from codetune_api.project import Project, ProjectStatus
from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.observed import ProjectView
from codetune_operator.reconcile.plan import Plan
from codetune_operator.reconcile.project import reconcile
from codetune_operator.resources.models import ModelSource
from codetune_operator.resources.project.scan import build_scan, locate_quality_model, rules_digest, scan_job_name
from codetune_operator.settings import Settings, parse_settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
LONG_AGO = "2026-11-23T09:00:00Z"
SETTINGS = Settings()
HUB = {"baseModel": "hf://org/model@v2", "modelSecretRef": {"name": "hub"}}
CLAIM = {"baseModel": "pvc://models/base"}


def make_project(quality: Obj | None) -> Project:
    key = {"name": "app", "git": {"url": "git@git.example.org:app.git"}, "credentialsSecretRef": {"name": "deploy-key"}}
    metadata = {
        "name": "mine",
        "namespace": "ns",
        "uid": "u1",
        "generation": 2,
        "finalizers": ["codetune.dev/artifacts"],
    }
    files = {"quality": quality} if quality is not None else {}
    return Project.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "Project",
            "metadata": metadata,
            "spec": {"sources": [key], "files": files},
        }
    )


def build(quality: Obj | None, settings: Settings = SETTINGS) -> tuple[Obj, Obj]:
    """The ConfigMap's data, and the pod's spec."""
    project = make_project(quality)
    model = locate_quality_model(project, settings)
    assert model is None or isinstance(model, ModelSource)
    config, job = build_scan(project, settings, (), model)
    pod: Obj = job["spec"]["template"]["spec"]
    data: Obj = config["data"]
    return data, pod


def env(container: Obj) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def test_a_hub_model_is_fetched_by_an_init_container_that_alone_has_the_token() -> None:
    data, pod = build(HUB)
    (fetch,), (scan,) = pod["initContainers"], pod["containers"]

    asked = FetchConfig.model_validate_json(data["fetch.json"])
    assert (asked.repository, asked.revision) == ("org/model", "v2")
    assert asked.nonce == ScanConfig.model_validate_json(data["config.json"]).nonce
    assert env(fetch)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert (env(scan)["CODETUNE_MODEL"], env(scan)["HF_HUB_OFFLINE"]) == ("/codetune/scratch/model", "1")
    assert "HF_TOKEN" not in env(scan)
    assert "credentials" not in "".join(mount["mountPath"] for mount in fetch["volumeMounts"])


def test_a_model_on_a_claim_is_mounted_read_only() -> None:
    data, pod = build(CLAIM)
    (scan,) = pod["containers"]

    claim = {"claimName": "models", "readOnly": True}
    assert {"name": "model", "persistentVolumeClaim": claim} in pod["volumes"]
    assert {"name": "model", "mountPath": "/codetune/models/models", "readOnly": True} in scan["volumeMounts"]
    assert env(scan)["CODETUNE_MODEL"] == "/codetune/models/models/base"
    assert "initContainers" not in pod
    assert list(data) == ["config.json"]


def test_a_project_without_the_rule_gets_no_model() -> None:
    data, pod = build(None)

    assert "initContainers" not in pod
    assert "CODETUNE_MODEL" not in env(pod["containers"][0])
    assert list(data) == ["config.json"]
    assert "quality" not in data["config.json"]


@pytest.mark.parametrize(
    ("device", "limits", "quality"),
    [
        pytest.param("cpu", {"memory": "2Gi"}, CLAIM, id="the operator's own"),
        pytest.param("cpu", {"memory": "8Gi"}, {**CLAIM, "resources": {"gpus": 0, "memory": "8Gi"}}, id="more memory"),
        pytest.param("cuda", {"nvidia.com/gpu": "1"}, {**CLAIM, "resources": {"gpus": 1}}, id="a GPU"),
    ],
)
def test_the_pod_asks_for_what_the_model_needs(device: str, limits: Obj, quality: Obj) -> None:
    data, pod = build(quality)

    assert pod["containers"][0]["resources"]["limits"] == limits
    assert ScanConfig.model_validate_json(data["config.json"]).device == device


def test_threads_are_as_many_as_the_cores_that_were_asked_for() -> None:
    _, pod = build({**CLAIM, "resources": {"gpus": 0, "cpu": "4"}})

    asked = {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1"}}
    assert env(pod["containers"][0])["OMP_NUM_THREADS"] == asked


@pytest.mark.parametrize(
    ("differs", "quality"),
    [
        pytest.param(False, HUB, id="the same"),
        pytest.param(True, None, id="the rule goes"),
        pytest.param(True, {**HUB, "maxLoss": 2.5}, id="another limit"),
        pytest.param(True, {**HUB, "baseModel": "hf://org/model@v3"}, id="another model"),
    ],
)
def test_a_change_of_the_rule_asks_for_another_scan(differs: bool, quality: Obj | None) -> None:
    assert (rules_digest(make_project(quality)) != rules_digest(make_project(HUB))) is differs


def look(project: Project, *, failed: bool = False, fetch: Obj | None = None) -> Plan:
    """What is decided about a Project: without a Job, or with one whose init container is in a state."""
    view = ProjectView(project=project, claim={"metadata": {"name": "codetune-artifacts"}})
    if fetch is None:
        return reconcile(view, SETTINGS, NOW)
    model = locate_quality_model(project, SETTINGS)
    assert isinstance(model, ModelSource)
    _, job = build_scan(project, SETTINGS, (), model)
    ended = [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "lastTransitionTime": LONG_AGO}]
    job |= {"status": {"conditions": ended if failed else []}}
    metadata = {"name": "p1", "labels": {"batch.kubernetes.io/job-name": scan_job_name(project)}}
    told = [{"name": "fetch", "image": "t", "state": fetch, "restartCount": 0}]
    status = {"phase": "Failed" if failed else "Pending", "initContainerStatuses": told, "startTime": LONG_AGO}
    pod = {"metadata": metadata, "spec": {}, "status": status}
    return reconcile(replace(view, jobs=(job,), pods=(pod,)), SETTINGS, NOW)


def read_status(plan: Plan) -> ProjectStatus:
    assert plan.status is not None
    return plan.status  # type: ignore[return-value]


def test_a_model_out_of_reach_is_the_projects_failure_and_starts_no_scan() -> None:
    plan = look(make_project({"baseModel": "file:///tiny"}))
    status = read_status(plan)

    assert (status.phase, status.failure and status.failure.reason) == ("Failed", "UnsupportedModel")
    stalled = conditions.find(status.conditions, "Stalled")
    assert stalled is not None
    assert "fileRoot" in stalled.message
    assert plan.apply == ()
    assert look(make_project({"baseModel": "file:///tiny"})) == plan


def test_a_project_that_was_scanned_keeps_its_data_when_its_model_is_out_of_reach() -> None:
    before = ProjectStatus.from_wire({"phase": "Ready", "revision": "sha256:" + "a" * 64, "configDigest": "other"})
    status = read_status(look(make_project({"baseModel": "file:///x"}).model_copy(update={"status": before})))

    assert (status.phase, status.revision, status.config_digest) == ("Failed", before.revision, "other")


def test_the_same_model_is_within_reach_where_the_settings_have_a_root_for_files() -> None:
    located = locate_quality_model(make_project({"baseModel": "file:///tiny"}), parse_settings("fileRoot: /srv"))
    assert located == ModelSource(path="/srv/tiny")


def test_fetching_the_model_is_told_however_long_it_takes() -> None:
    ready = conditions.find(read_status(look(make_project(HUB), fetch={"running": {}})).conditions, "Ready")
    assert ready is not None
    assert (ready.reason, "fetched" in ready.message) == ("FetchingModel", True)


MODEL_FAILURES = [
    pytest.param("GatedModel", "org/model is gated.", id="gated"),
    pytest.param("ModelNotFound", "The hub has no model org/model.", id="not there"),
    pytest.param("RevisionNotFound", "org/model has no revision 'v2'.", id="no such revision"),
    pytest.param("AuthenticationFailed", "The hub refuses the token for org/model.", id="refused"),
]


@pytest.mark.parametrize(("reason", "message"), MODEL_FAILURES)
def test_a_model_that_the_hub_does_not_give_is_not_blamed_on_a_source(reason: str, message: str) -> None:
    words = f'{{"reason":"{reason}","message":"{message}","hint":"Do this."}}'
    ended = {"terminated": {"exitCode": 64, "message": words}}
    status = read_status(look(make_project(HUB), failed=True, fetch=ended))

    assert status.failure is not None
    assert (status.phase, status.failure.reason, status.failure.message) == ("Failed", reason, message)
    assert [source for source in status.sources if source.reason] == []
    ready = conditions.find(status.conditions, "Ready")
    assert ready is not None
    assert "Do this." in ready.message
    assert "codetune.dev/rescan" in ready.message
