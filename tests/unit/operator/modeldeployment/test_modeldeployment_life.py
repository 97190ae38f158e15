"""The life of a ModelDeployment: what was observed in; phase, conditions, children and pushes out."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from codetune_api.contracts import ServerReport
from codetune_api.finetune import FineTune
from codetune_api.modeldeployment import ModelDeployment, ModelDeploymentStatus
from codetune_operator.reconcile.modeldeployment.deciding import LOOK_AGAIN_SECONDS, SETTLE_SECONDS, reconcile
from codetune_operator.reconcile.observed import ModelDeploymentView
from codetune_operator.reconcile.plan import Follow, Plan
from codetune_operator.resources.modeldeployment.names import adapter_token, pod_selector
from codetune_operator.resources.modeldeployment.serving import fetch_nonce
from codetune_operator.runs.report import RunReport
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
KEY = b"0123456789abcdef0123456789abcdef"
SETTINGS = Settings()
CLAIM: Obj = {"metadata": {"name": "codetune-artifacts"}}
DIGEST, FORMER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
MINE: Obj = {"name": "mine", "fineTuneRef": {"name": "backend"}}


def make_mdep(*adapters: Obj, metadata: Obj | None = None, **spec: Any) -> ModelDeployment:
    base = {"name": "coder", "namespace": "ns", "uid": "u1", "generation": 2, **(metadata or {})}
    spec = {"baseModel": "pvc://models/base", "adapters": list(adapters), **spec}
    return ModelDeployment.from_wire(
        {"apiVersion": "codetune.dev/v1alpha1", "kind": "ModelDeployment", "metadata": base, "spec": spec}
    )


def make_finetune(phase: str = "Succeeded", *, base: str = "pvc://models/base", rank: int = 16) -> FineTune:
    uri = "pvc://codetune-artifacts/ns/finetunes/backend/f1/checkpoints/step-000060"
    done = {
        "checkpoints": [{"name": "step-000060", "step": 60, "uri": uri, "digest": DIGEST}],
        "bestCheckpoint": "step-000060",
        "adapter": {"uri": uri, "digest": DIGEST, "rank": rank},
        "evaluation": {"base": {"loss": 2.0}, "tuned": {"loss": 1.98}, "improvement": 0.01},
    }
    status = {"phase": phase, **(done if phase == "Succeeded" else {})}
    spec = {"projectRef": {"name": "p"}, "baseModel": base, "preset": "Smaller"}
    metadata = {"name": "backend", "namespace": "ns", "uid": "f1"}
    return FineTune.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "FineTune",
            "metadata": metadata,
            "spec": spec,
            "status": status,
        }
    )


def make_deployment(wanted: int, available: int, *, updated: int | None = None, rank: int = 16) -> Obj:
    status = {
        "observedGeneration": 1,
        "replicas": wanted,
        "readyReplicas": available,
        "updatedReplicas": wanted if updated is None else updated,
        "availableReplicas": available,
    }
    container = {"name": "server", "args": ["--max-lora-rank", str(rank)]}
    spec = {"replicas": wanted, "template": {"spec": {"containers": [container]}}}
    return {"metadata": {"name": "coder", "generation": 1}, "spec": spec, "status": status}


def make_pod(name: str = "p1", *, ready: bool = True, state: Obj | None = None, restarts: int = 0, **last: Any) -> Obj:
    entry = {
        "name": "server",
        "image": "codetune-server:1",
        "ready": ready,
        "started": ready,
        "restartCount": restarts,
        "state": state or {"running": {}},
        "lastState": last,
    }
    status = {
        "phase": "Running",
        "podIP": "10.0.0.7",
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [entry],
    }
    return {"metadata": {"name": name, "creationTimestamp": "2026-11-23T09:00:00Z"}, "status": status}


def report(phase: str = "Ready", digest: str | None = DIGEST, reason: str = "", ready: bool = True) -> ServerReport:
    entry = {
        "name": "mine",
        "digest": digest,
        "desiredDigest": DIGEST,
        "phase": phase,
        "reason": reason,
        "message": "m.",
    }
    return ServerReport.model_validate({"ready": ready, "adapters": [entry], "models": ["base", "mine"]})


BARE_REPORT = ServerReport(ready=True, adapters=[], models=["base"])


def view(mdep: ModelDeployment, **more: Any) -> ModelDeploymentView:
    return replace(ModelDeploymentView(modeldeployment=mdep, operator_key=KEY, claim=CLAIM), **more)


def serving(mdep: ModelDeployment, finetune: FineTune | None = None, **more: Any) -> ModelDeploymentView:
    """One replica, rolled out, that told what it holds."""
    common: Obj = {
        "deployment": make_deployment(1, 1),
        "pods": (make_pod(),),
        "server_reports": {"p1": report() if mdep.spec.adapters else BARE_REPORT},
        "finetunes": {"backend": finetune} if finetune else {},
    }
    return view(mdep, **{**common, **more})


def status_of(plan: Plan) -> ModelDeploymentStatus:
    assert isinstance(plan.status, ModelDeploymentStatus)
    return plan.status


BACKOFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
BOOM: Obj = {"terminated": {"exitCode": 1, "message": "boom"}}
UNSCHEDULED = {
    "metadata": {"name": "p2"},
    "spec": {"containers": [{"name": "server", "resources": {"limits": {"nvidia.com/gpu": "64"}}}]},
    "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1"}]},
}
HELD = {**MINE, "minImprovement": 0.5}

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


PUSHES = [
    pytest.param(set(), {"p1": report()}, make_pod(), id="holds it"),
    pytest.param({"p1"}, {}, make_pod(), id="never asked"),
    pytest.param({"p1"}, {"p1": "connection refused"}, make_pod(), id="did not answer"),
    pytest.param({"p1"}, {"p1": report("Loading", FORMER, ready=False)}, make_pod(), id="still loading"),
    pytest.param({"p1"}, {"p1": BARE_REPORT}, make_pod(), id="was told something else"),
    pytest.param(set(), {}, make_pod(ready=False), id="does not answer yet"),
    pytest.param(set(), {}, make_pod(state=BACKOFF), id="does not run"),
]


@pytest.mark.parametrize(("expected", "reports", "pod"), PUSHES)
def test_pods_are_told_that_can_listen_and_do_not_know(
    expected: set[str], reports: dict[str, ServerReport | str], pod: Obj
) -> None:
    observed = serving(make_mdep(MINE), make_finetune(), server_reports=reports, pods=(pod,))
    plan = reconcile(observed, SETTINGS, NOW)
    assert (set(plan.push.pods) if plan.push else set()) == expected
    assert plan.requeue_after == (SETTLE_SECONDS if expected else LOOK_AGAIN_SECONDS)
    if plan.push is not None:
        assert plan.push.pods == {"p1": "http://10.0.0.7:8000"}
        assert plan.push.token == adapter_token(KEY, observed.modeldeployment)
        assert plan.push.token not in repr(plan.push)


@pytest.mark.parametrize(
    ("url", "address"), [("http://10.0.0.7:8000", "10.0.0.7"), ("http://[fd00::7]:8000", "fd00::7")]
)
def test_pods_are_told_at_their_address_of_either_family(url: str, address: str) -> None:
    pod = make_pod()
    pod["status"]["podIP"] = address
    plan = reconcile(serving(make_mdep(MINE), make_finetune(), server_reports={}, pods=(pod,)), SETTINGS, NOW)
    assert plan.push is not None
    assert plan.push.pods == {"p1": url}


@pytest.mark.parametrize(
    ("words", "report"),
    [
        pytest.param("pod p1 fetches the base model.", RunReport(), id="nothing said yet"),
        pytest.param(
            "pod p1 fetches org/name: 3.1 of 14.5 GB (21 %), 4 of 9 files.",
            RunReport(stage="Fetching", stage_message="org/name: 3.1 of 14.5 GB (21 %), 4 of 9 files"),
            id="how much of it",
        ),
    ],
)
def test_what_is_fetched_of_a_hub_model_is_read_from_the_pods_log_and_told(words: str, report: RunReport) -> None:
    pod = make_pod(ready=False, state={"waiting": {"reason": "PodInitializing"}})
    pod["status"]["initContainerStatuses"] = [{"name": "fetch", "state": {"running": {}}}]
    mdep = make_mdep(baseModel="hf://org/name")
    other = {**pod, "metadata": {**pod["metadata"], "name": "p2"}}
    observed = view(mdep, deployment=make_deployment(2, 0), pods=(pod, other), report=report)
    plan = reconcile(observed, SETTINGS, NOW)
    assert plan.follow == (Follow("p1", "fetch", fetch_nonce(mdep)),)
    config = next(child for child in plan.apply if child["metadata"]["name"] == "coder-fetch")
    assert fetch_nonce(mdep) in config["data"]["fetch.json"]
    (ready,) = [entry for entry in status_of(plan).conditions if entry.type == "Ready"]
    assert ready.message.endswith(words)
    done = {**pod, "status": {**pod["status"], "initContainerStatuses": []}}
    assert reconcile(replace(observed, pods=(done,)), SETTINGS, NOW).follow == ()


def test_a_store_is_made_where_there_is_none() -> None:
    plan = reconcile(view(make_mdep(), claim=None), SETTINGS, NOW)
    assert plan.apply[0]["kind"] == "PersistentVolumeClaim"
    assert "PersistentVolumeClaim" not in {child["kind"] for child in reconcile(view(make_mdep()), SETTINGS, NOW).apply}


def test_a_larger_rank_rolls_the_pods_and_says_so_and_a_smaller_one_does_not() -> None:
    plan = reconcile(serving(make_mdep(MINE), make_finetune(rank=60)), SETTINGS, NOW)
    assert "MaxLoraRankRaised" in {event.reason for event in plan.events}
    (workload,) = [child for child in plan.apply if child["kind"] == "Deployment"]
    arguments = workload["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--max-lora-rank") + 1] == "64"
    kept = reconcile(serving(make_mdep(), deployment=make_deployment(1, 1, rank=64)), SETTINGS, NOW)
    (workload,) = [child for child in kept.apply if child["kind"] == "Deployment"]
    assert "64" in workload["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "MaxLoraRankRaised" not in {event.reason for event in kept.events}


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


def test_a_rank_that_pods_found_too_high_rolls_them() -> None:
    by_uri = {"name": "mine", "uri": "pvc://codetune-artifacts/x"}
    entry = {"name": "mine", "phase": "Failed", "reason": "RankTooHigh", "message": "m", "rank": 200}
    told = ServerReport.model_validate({"ready": True, "adapters": [entry], "models": ["base"]})
    observed = serving(make_mdep(by_uri), deployment=make_deployment(1, 1, rank=64), server_reports={"p1": told})
    plan = reconcile(observed, SETTINGS, NOW)
    (event,) = [event for event in plan.events if event.reason == "MaxLoraRankRaised"]
    assert "'mine' needs --max-lora-rank 256" in event.message
    (ready,) = [entry for entry in status_of(plan).conditions if entry.type == "Ready"]
    assert "'mine': It has rank 200" in ready.message


def test_a_deleted_one_is_left_to_its_owner_references() -> None:
    gone = make_mdep(metadata={"deletionTimestamp": "2026-11-23T09:00:00Z"})
    assert reconcile(serving(gone), SETTINGS, NOW) == Plan()


def test_a_new_version_of_an_adapter_is_an_event() -> None:
    observed = serving(make_mdep(MINE), make_finetune())
    (event,) = [event for event in reconcile(observed, SETTINGS, NOW).events if event.reason == "AdapterReady"]
    assert "step-000060" in event.message
