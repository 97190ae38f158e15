"""A store's claim that nothing makes a volume for: who waits for it says so, with the cure, until it is bound."""

from datetime import UTC, datetime
from typing import Any

import pytest
from codetune_api.finetune import FineTune
from codetune_api.metadata import FINALIZER
from codetune_api.modeldeployment import ModelDeployment
from codetune_api.project import Project
from codetune_operator.reconcile import finetune, modeldeployment, project
from codetune_operator.reconcile.observed import FineTuneView, ModelDeploymentView, ProjectView
from codetune_operator.reconcile.plan import Plan
from codetune_operator.reconcile.unbound import CLAIM_SECONDS, explain_unbound
from codetune_operator.resources.finetune.training import build_training, pin_dataset, training_job_name
from codetune_operator.resources.models import ModelSource, locate_model
from codetune_operator.resources.project.scan import build_scan, scan_job_name
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
JUST_NOW, LONG_AGO = "2026-11-23T09:59:50Z", "2026-11-23T09:50:00Z"
SETTINGS = Settings()
REVISION = "sha256:" + "a" * 64
IMMEDIATE = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/3 nodes are ..."
PRE_BIND = 'running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded'
NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def make_claim(phase: str = "Pending", mode: str = "ReadWriteMany", storage: str | None = "standard") -> Obj:
    spec: Obj = {"accessModes": [mode], "resources": {"requests": {"storage": "50Gi"}}}
    if storage is not None:
        spec["storageClassName"] = storage
    metadata = {"name": "codetune-artifacts", "namespace": "ns", "creationTimestamp": LONG_AGO}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase}}


def make_pod(said: str = "", created: str = LONG_AGO, claim: str = "codetune-artifacts", node: str = "") -> Obj:
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}]
    return {
        "metadata": {"name": "p1", "creationTimestamp": created},
        "spec": {
            "containers": [],
            "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": claim}}],
            **({"nodeName": node} if node else {}),
        },
        "status": {"phase": "Pending", "conditions": conditions if said else []},
    }


@pytest.mark.parametrize(
    ("told", "left", "claim", "pod"),
    [
        pytest.param(True, None, make_claim(), make_pod(), id="its class waits for the pod, and makes nothing"),
        pytest.param(True, None, make_claim(), make_pod(PRE_BIND), id="the scheduler has given up waiting"),
        pytest.param(True, None, make_claim(), make_pod(IMMEDIATE), id="its class makes nothing"),
        pytest.param(True, None, make_claim("Lost"), make_pod(), id="its volume is gone"),
        pytest.param(False, 110, make_claim(), make_pod(created=JUST_NOW), id="it may come yet"),
        pytest.param(False, None, make_claim("Bound"), make_pod(), id="it is there"),
        pytest.param(False, None, None, make_pod(), id="not made yet"),
        pytest.param(False, None, make_claim(), make_pod(NO_GPU), id="no node takes the pod: so nobody asks for it"),
        pytest.param(False, None, make_claim(), make_pod(node="n1"), id="the pod has its node"),
        pytest.param(False, None, make_claim(), make_pod(claim="other"), id="the pod has no use for it"),
    ],
)
def test_who_waits_too_long_for_the_claim_is_told(told: bool, left: float | None, claim: Obj | None, pod: Obj) -> None:
    failure, seconds = explain_unbound(claim, [pod], NOW)
    assert (failure is not None, seconds) == (told, left)


@pytest.mark.parametrize(
    ("message", "hints", "claim"),
    [
        pytest.param(
            "Pod p1 waits for the claim 'codetune-artifacts' (ReadWriteMany, 50Gi, storage class 'standard'), which "
            f"is still Pending after {CLAIM_SECONDS} s.",
            ["settings.store.accessMode to ReadWriteOnce", "settings.store.storageClassName", "make a class"],
            make_claim(),
            id="a class that may not offer many writers",
        ),
        pytest.param(
            f"Pod p1 waits for the claim 'codetune-artifacts' (ReadWriteOnce, 50Gi, no storage class: the cluster has "
            f"no default one), which is still Pending after {CLAIM_SECONDS} s.",
            ["settings.store.storageClassName"],
            make_claim(mode="ReadWriteOnce", storage=None),
            id="no class at all",
        ),
    ],
)
def test_what_the_claim_asks_for_is_named_with_the_cure(message: str, hints: list[str], claim: Obj) -> None:
    failure, _ = explain_unbound(claim, [make_pod()], NOW)
    assert failure is not None
    assert (failure.reason, failure.message) == ("Unschedulable", message)
    assert all(hint in failure.hint for hint in hints)
    assert ("accessMode" in failure.hint) == ("ReadWriteMany" in message)


def wire(kind: str, **spec: Any) -> Obj:
    metadata = {"name": "mine", "namespace": "ns", "uid": "u1", "generation": 2, "finalizers": [FINALIZER]}
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def of_job(pod: Obj, job: Obj) -> tuple[Obj, Obj]:
    """The Job at work, and the pod as its own."""
    name = job["metadata"]["name"]
    live = {**job, "metadata": {**job["metadata"], "uid": "j1"}, "status": {"startTime": LONG_AGO}}
    return live, {**pod, "metadata": {**pod["metadata"], "labels": {"job-name": name}}}


def plan_project(claim: Obj, pod: Obj) -> Plan:
    key = {"name": "app", "git": {"url": "https://example.org/a.git"}, "credentialsSecretRef": {"name": "deploy-key"}}
    mine = Project.from_wire(wire("Project", sources=[key]))
    _, job = build_scan(mine, SETTINGS)
    live, own = of_job(pod, job)
    assert live["metadata"]["name"] == scan_job_name(mine)
    return project.reconcile(ProjectView(mine, jobs=(live,), pods=(own,), claim=claim), SETTINGS, NOW)


def plan_finetune(claim: Obj, pod: Obj) -> Plan:
    status = {"dataset": {"revision": REVISION, "uri": "pvc://codetune-artifacts/x"}}
    spec = {"projectRef": {"name": "code"}, "baseModel": "pvc://models/base"}
    mine = FineTune.from_wire({**wire("FineTune", **spec), "status": status})
    model, dataset = locate_model(mine.spec.base_model, SETTINGS), pin_dataset(mine, REVISION)
    assert isinstance(model, ModelSource)
    *_, job = build_training(mine, dataset, model, SETTINGS)
    live, own = of_job(pod, job)
    assert live["metadata"]["name"] == training_job_name(mine, dataset)
    return finetune.reconcile(FineTuneView(mine, jobs=(live,), pods=(own,), claim=claim), SETTINGS, NOW)


def plan_modeldeployment(claim: Obj, pod: Obj) -> Plan:
    mine = ModelDeployment.from_wire(wire("ModelDeployment", baseModel="pvc://models/base"))
    return modeldeployment.reconcile(ModelDeploymentView(mine, pods=(pod,), claim=claim), SETTINGS, NOW)


KINDS = [
    pytest.param("Scanning", plan_project, id="Project"),
    pytest.param("Queued", plan_finetune, id="FineTune"),
    pytest.param("Pending", plan_modeldeployment, id="ModelDeployment"),
]


@pytest.mark.parametrize(("phase", "plan"), KINDS)
@pytest.mark.parametrize("said", [pytest.param("", id="silent"), pytest.param(IMMEDIATE, id="immediate")])
def test_it_is_a_state_that_passes_and_a_person_hears_of_it(phase: str, plan: Any, said: str) -> None:
    found: Plan = plan(make_claim(), make_pod(said))
    status: Any = found.status
    conditions = {entry.type: entry for entry in status.conditions}
    assert (status.phase, status.failure.reason) == (phase, "Unschedulable")
    assert "the claim 'codetune-artifacts' (ReadWriteMany, 50Gi" in conditions["Ready"].message
    assert conditions["Reconciling"].reason == "Unschedulable"
    assert "Stalled" not in conditions
    assert [event.reason for event in found.events if "accessMode to ReadWriteOnce" in event.message] == [
        "Unschedulable"
    ]


@pytest.mark.parametrize("plan", [plan_project, plan_finetune])
@pytest.mark.parametrize("said", [pytest.param("", id="silent"), pytest.param(IMMEDIATE, id="immediate")])
def test_until_then_it_is_looked_at_again_by_itself(plan: Any, said: str) -> None:
    found: Plan = plan(make_claim(), make_pod(said, created=JUST_NOW))
    assert found.requeue_after == CLAIM_SECONDS - 10
    assert "the claim 'codetune-artifacts'" not in str(found.status)


def test_a_pod_that_waits_for_the_claim_is_not_said_to_lack_a_secret() -> None:
    status: Any = plan_project(make_claim(), make_pod(created="2026-11-23T09:59:00Z")).status
    assert status.failure is None
