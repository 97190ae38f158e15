"""The life of a ModelDeployment: what was observed in; phase, conditions and children out."""

from dataclasses import replace
from typing import Any

import pytest
from codetune_operator.reconcile.modeldeployment.deciding import reconcile
from codetune_operator.reconcile.observed import ModelDeploymentView
from codetune_operator.reconcile.plan import Plan
from codetune_operator.resources.modeldeployment.names import pod_selector
from codetune_operator.settings import Settings
from unit.operator.modeldeployment.situations import (
    BACKOFF,
    BARE_REPORT,
    BOOM,
    DIGEST,
    HELD,
    MINE,
    NOW,
    SETTINGS,
    UNSCHEDULED,
    Obj,
    make_deployment,
    make_finetune,
    make_mdep,
    make_pod,
    report,
    serving,
    status_of,
    view,
)

LIFE = [
    pytest.param(("Pending", "False", "Pending", "Reconciling"), view(make_mdep()), id="just made"),
    pytest.param(
        ("Starting", "False", "Starting", "Reconciling"),
        view(make_mdep(), deployment=make_deployment(1, 0), pods=(make_pod(ready=False),)),
        id="the first replica starts",
    ),
    pytest.param(("Ready", "True", "Serving", None), serving(make_mdep()), id="base model only"),
    pytest.param(("Ready", "True", "Serving", None), serving(make_mdep(MINE), make_finetune()), id="with its adapter"),
    pytest.param(
        ("Updating", "False", "AdaptersLoading", "Reconciling"),
        serving(make_mdep(MINE), make_finetune(), server_reports={"p1": report("Loading", None, ready=False)}),
        id="adapter loads",
    ),
    pytest.param(
        ("Updating", "False", "AdaptersLoading", "Reconciling"),
        serving(make_mdep(MINE), make_finetune(), server_reports={}),
        id="nothing heard after a restart of the operator",
    ),
    pytest.param(
        ("Updating", "False", "PodSilent", "Reconciling"),
        serving(make_mdep(MINE), make_finetune(), server_reports={"p1": "GET http://10.0.0.7:8000 failed: timeout"}),
        id="its pod is out of the operator's reach",
    ),
    pytest.param(
        ("Updating", "False", "AdapterPending", "Reconciling"),
        serving(make_mdep(MINE), make_finetune("Running"), server_reports={"p1": BARE_REPORT}),
        id="the run goes on",
    ),
    pytest.param(
        ("Ready", "True", "Serving", None),
        serving(make_mdep(adapterSelector={}), make_finetune("Running"), server_reports={"p1": BARE_REPORT}),
        id="a run that was found by its labels goes on",
    ),
    pytest.param(
        ("Ready", "True", "Serving", None),
        serving(make_mdep(adapterSelector={}), make_finetune(base="pvc://models/other")),
        id="a run that was found by its labels is of another base model",
    ),
    pytest.param(
        ("Updating", "False", "AdaptersLoading", "Reconciling"),
        serving(make_mdep(adapterSelector={}), make_finetune(), server_reports={"p1": BARE_REPORT}),
        id="an adapter that was found by its labels loads",
    ),
    pytest.param(
        ("Failed", "False", "NoApiKeys", "Stalled"),
        serving(
            make_mdep(apiKeysSecretRef={"name": "keys"}),
            server_reports={"p1": BARE_REPORT.model_copy(update={"api_keys": 0})},
        ),
        id="no key opens it",
    ),
    pytest.param(
        ("Ready", "True", "Serving", None),
        serving(
            make_mdep(apiKeysSecretRef={"name": "keys"}),
            server_reports={"p1": BARE_REPORT.model_copy(update={"api_keys": 2})},
        ),
        id="two keys open it",
    ),
    pytest.param(
        ("Failed", "False", "InvalidParameters", "Stalled"),
        serving(make_mdep(engine={"extraArgs": ["--max-model", "4096"]})),
        id="an argument that is not the spec's to give",
    ),
    pytest.param(
        ("Failed", "False", "InvalidParameters", "Stalled"),
        view(make_mdep(engine={"extraArgs": ["--host=::"]}, replicas=0), deployment=make_deployment(0, 0)),
        id="the same without replicas",
    ),
    pytest.param(
        ("Failed", "False", "AdapterIncompatible", "Stalled"),
        serving(make_mdep(MINE), make_finetune(base="pvc://models/other"), server_reports={"p1": BARE_REPORT}),
        id="adapter of another base model",
    ),
    pytest.param(
        ("Failed", "False", "AdapterFailed", "Stalled"),
        serving(make_mdep(MINE), make_finetune("Failed"), server_reports={"p1": BARE_REPORT}),
        id="adapter of a failed run",
    ),
    pytest.param(
        ("Failed", "False", "DigestMismatch", "Stalled"),
        serving(make_mdep(MINE), make_finetune(), server_reports={"p1": report("Failed", None, "DigestMismatch")}),
        id="the server refuses it",
    ),
    pytest.param(
        ("Ready", "True", "Serving", None),
        serving(make_mdep(HELD), make_finetune(), server_reports={"p1": BARE_REPORT}),
        id="held back as asked",
    ),
    pytest.param(
        ("Updating", "False", "Rolling", "Reconciling"),
        serving(make_mdep(replicas=2), deployment=make_deployment(2, 1)),
        id="one of two",
    ),
    pytest.param(
        ("Updating", "False", "Rolling", "Reconciling"),
        serving(make_mdep(), deployment=make_deployment(1, 1, updated=0)),
        id="pods are being replaced",
    ),
    pytest.param(
        ("Updating", "False", "Rolling", "Reconciling"),
        serving(make_mdep(replicas=3)),
        id="scaled, the Deployment does not know yet",
    ),
    pytest.param(
        ("Stopped", "True", "ScaledToZero", None),
        view(make_mdep(MINE, replicas=0), deployment=make_deployment(0, 0)),
        id="scaled to zero",
    ),
    pytest.param(
        ("Updating", "False", "Rolling", "Reconciling"),
        serving(make_mdep(replicas=0)),
        id="being scaled to zero",
    ),
    pytest.param(
        ("Starting", "False", "CrashLoop", "Reconciling"),
        view(
            make_mdep(),
            deployment=make_deployment(1, 0),
            pods=(make_pod(ready=False, state=BACKOFF, restarts=1, **BOOM),),
        ),
        id="crashed once",
    ),
    pytest.param(
        ("Failed", "False", "CrashLoop", "Stalled"),
        view(
            make_mdep(),
            deployment=make_deployment(1, 0),
            pods=(make_pod(ready=False, state=BACKOFF, restarts=3, **BOOM),),
        ),
        id="crashes again and again",
    ),
    pytest.param(
        ("Starting", "False", "Unschedulable", "Reconciling"),
        view(make_mdep(), deployment=make_deployment(1, 0), pods=(UNSCHEDULED,)),
        id="no node takes it",
    ),
    pytest.param(
        ("Updating", "False", "Unschedulable", "Reconciling"),
        serving(make_mdep(replicas=2), deployment=make_deployment(2, 1), pods=(make_pod(), UNSCHEDULED)),
        id="no node takes the second",
    ),
    pytest.param(
        ("Failed", "False", "UnsupportedModel", "Stalled"),
        view(make_mdep(baseModel="file:///x")),
        id="model out of reach",
    ),
]


@pytest.mark.parametrize(("expected", "observed"), LIFE)
def test_phase_and_conditions_follow_from_what_is_observed(
    expected: tuple[str, str, str, str | None], observed: ModelDeploymentView
) -> None:
    phase, ready, reason, abnormal = expected
    status = status_of(reconcile(observed, SETTINGS, NOW))
    found = {entry.type: entry for entry in status.conditions}
    assert (status.phase, found["Ready"].status, found["Ready"].reason) == (phase, ready, reason)
    assert found.keys() - {"Ready", "Available"} == ({abnormal} if abnormal else set())
    assert status.observed_generation == 2


@pytest.mark.parametrize(("expected", "observed"), LIFE)
def test_whatever_stalls_it_is_its_failure_or_that_of_an_adapter(
    expected: object, observed: ModelDeploymentView
) -> None:
    status = status_of(reconcile(observed, SETTINGS, NOW))
    stalled = {entry.reason for entry in status.conditions if entry.type == "Stalled"}
    told = {state.reason for state in status.adapters if state.phase == "Failed"}
    assert stalled <= told | {status.failure.reason if status.failure else None}


@pytest.mark.parametrize(("expected", "observed"), LIFE)
def test_doing_it_again_says_nothing_new(expected: object, observed: ModelDeploymentView) -> None:
    first = reconcile(observed, SETTINGS, NOW)
    mdep = observed.modeldeployment.model_copy(update={"status": first.status})
    second = reconcile(replace(observed, modeldeployment=mdep), SETTINGS, NOW)
    assert (second.status, second.apply, second.push) == (first.status, first.apply, first.push)
    assert second.events == ()


def test_what_is_served_is_told() -> None:
    status = status_of(reconcile(serving(make_mdep(MINE), make_finetune()), SETTINGS, NOW))
    assert status.endpoint == "http://coder.ns.svc:8000"
    assert (status.replicas, status.ready_replicas, status.models) == (1, 1, ["base", "mine"])
    assert status.selector == ",".join(f"{key}={value}" for key, value in sorted(pod_selector(make_mdep()).items()))
    (adapter,) = status.adapters
    assert (adapter.phase, adapter.checkpoint, adapter.digest) == ("Ready", "step-000060", DIGEST)
    available = next(entry for entry in status.conditions if entry.type == "Available")
    assert available.status == "True"


def test_a_broken_adapter_leaves_the_rest_available() -> None:
    good = {"name": "good", "uri": "pvc://codetune-artifacts/good"}
    wrong = make_finetune(base="pvc://models/other")
    plan = reconcile(serving(make_mdep(MINE, good), wrong), SETTINGS, NOW)
    status = status_of(plan)
    assert [(state.name, state.phase) for state in status.adapters] == [("mine", "Failed"), ("good", "Loading")]
    assert next(entry for entry in status.conditions if entry.type == "Available").status == "True"
    assert plan.push is not None
    assert [adapter.name for adapter in plan.push.adapters.adapters] == ["good"]


@pytest.mark.parametrize(
    ("expected", "service"),
    [
        pytest.param(None, None, id="no service yet"),
        pytest.param("http://127.0.3.4:8000", {"spec": {"clusterIP": "127.0.3.4"}}, id="its address"),
        pytest.param(None, {"spec": {"clusterIP": "None"}}, id="headless"),
    ],
)
def test_without_dns_the_endpoint_is_an_address(expected: str | None, service: Obj | None) -> None:
    settings = Settings(endpoint="ClusterIP")
    assert status_of(reconcile(serving(make_mdep(), service=service), settings, NOW)).endpoint == expected


def test_a_store_is_made_where_there_is_none() -> None:
    plan = reconcile(view(make_mdep(), claim=None), SETTINGS, NOW)
    assert plan.apply[0]["kind"] == "PersistentVolumeClaim"
    assert "PersistentVolumeClaim" not in {child["kind"] for child in reconcile(view(make_mdep()), SETTINGS, NOW).apply}


def test_what_runs_goes_on_while_the_spec_asks_for_something_impossible() -> None:
    plan = reconcile(serving(make_mdep(engine={"extraArgs": ["-tp", "2"]})), SETTINGS, NOW)
    assert (plan.apply, plan.delete, plan.push) == ((), (), None)
    failure = status_of(plan).failure
    assert failure is not None
    assert ("'-tp'" in failure.message, "resources.gpus" in failure.hint) == (True, True)


def policy(kind: str, **metadata: Any) -> Obj:
    versions = {"HorizontalPodAutoscaler": "autoscaling/v2", "PodDisruptionBudget": "policy/v1"}
    return {"apiVersion": versions[kind], "kind": kind, "metadata": {"name": "coder", "uid": "x", **metadata}}


def test_policies_go_when_the_spec_no_longer_asks_for_them() -> None:
    there = (policy("PodDisruptionBudget"), policy("HorizontalPodAutoscaler"))
    plan = reconcile(serving(make_mdep(replicas=2), policies=there), SETTINGS, NOW)
    assert [(child.api_version, child.kind, child.name, child.uid) for child in plan.delete] == [
        ("autoscaling/v2", "HorizontalPodAutoscaler", "coder", "x")
    ]
    assert "PodDisruptionBudget" in {child["kind"] for child in plan.apply}
    going = (policy("HorizontalPodAutoscaler", deletionTimestamp="2026-11-23T09:00:00Z"),)
    assert reconcile(serving(make_mdep(), policies=going), SETTINGS, NOW).delete == ()


def test_a_deleted_one_is_left_to_its_owner_references() -> None:
    gone = make_mdep(metadata={"deletionTimestamp": "2026-11-23T09:00:00Z"})
    assert reconcile(serving(gone), SETTINGS, NOW) == Plan()


def test_a_new_version_of_an_adapter_is_an_event() -> None:
    observed = serving(make_mdep(MINE), make_finetune())
    (event,) = [event for event in reconcile(observed, SETTINGS, NOW).events if event.reason == "AdapterReady"]
    assert "step-000060" in event.message


def _of_template(pod: Obj, template: str, created: str) -> Obj:
    metadata = {**pod["metadata"], "labels": {"pod-template-hash": template}, "creationTimestamp": created}
    return {**pod, "metadata": metadata}


CRASHED = _of_template(make_pod("p1", ready=False, state=BACKOFF, restarts=9, **BOOM), "former", "2026-11-23T09:00:00Z")
STARTING = _of_template(make_pod("p2", ready=False), "present", "2026-11-23T09:30:00Z")


def test_what_ailed_the_pods_before_a_change_is_told_no_longer() -> None:
    observed = view(make_mdep(), deployment=make_deployment(1, 0), pods=(CRASHED, STARTING))
    status = status_of(reconcile(observed, SETTINGS, NOW))
    assert (status.phase, status.failure) == ("Starting", None)
    former = replace(observed, pods=(CRASHED,))
    assert status_of(reconcile(former, SETTINGS, NOW)).phase == "Failed"


@pytest.mark.parametrize(
    ("unavailable", "pods"),
    [
        pytest.param("100%", (CRASHED,), id="its only pod crashes"),
        pytest.param("100%", (UNSCHEDULED,), id="no node takes its pod"),
        pytest.param(0, (CRASHED, make_pod()), id="one answers"),
    ],
)
def test_pods_that_never_answer_hold_nothing_from_those_that_mend_it(unavailable: Any, pods: tuple[Obj, ...]) -> None:
    plan = reconcile(view(make_mdep(), deployment=make_deployment(1, 0), pods=pods), SETTINGS, NOW)
    (workload,) = [each for each in plan.apply if each["kind"] == "Deployment"]
    assert workload["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": unavailable}
