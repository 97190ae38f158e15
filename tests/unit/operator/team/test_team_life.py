"""The life of a Team: what was observed in; phase, conditions, models, children and events out."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from codetune_api.modeldeployment import ModelDeployment
from codetune_api.team import Team, TeamStatus
from codetune_operator.reconcile.observed import TeamView
from codetune_operator.reconcile.plan import ChildRef, EventSpec, Plan
from codetune_operator.reconcile.team.deciding import LOOK_AGAIN_SECONDS, reconcile
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
SETTINGS = Settings()


def completes(deployment: str = "coder", model: str | None = None) -> Obj:
    return {"deploymentRef": {"name": deployment}, **({"model": model} if model else {})}


SHOP = {"projectRef": {"name": "shop"}, "completionModel": completes(model="mine")}


def make_team(*projects: Obj, metadata: Obj | None = None, **spec: Any) -> Team:
    base = {"name": "web", "namespace": "ns", "uid": "t1", "generation": 2, **(metadata or {})}
    spec = {
        "apiKeysSecretRef": {"name": "web-keys"},
        "completionModel": completes(),
        "projects": list(projects),
        **spec,
    }
    return Team.from_wire({"apiVersion": "codetune.dev/v1alpha1", "kind": "Team", "metadata": base, "spec": spec})


def make_mdep(*models: str, ready: str = "", reason: str = "Serving", **more: Any) -> ModelDeployment:
    """One that serves these models; `ready`: what its condition Ready says."""
    happy = reason in {"Serving", "ScaledToZero"}
    told = {"status": str(happy), "reason": reason, "message": ready, "lastTransitionTime": "2026-11-23T09:00:00Z"}
    kinds = ["Ready", *([] if happy or more.pop("waits", False) else ["Stalled"])]
    status = {
        "observedGeneration": 1,
        "conditions": [{"type": kind, **told} for kind in kinds],
        "models": list(models),
        "adapters": more.pop("states", []),
    }
    return ModelDeployment.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": "coder", "namespace": "ns", "generation": more.pop("generation", 1)},
            "spec": {"baseModel": "pvc://models/base", **more},
            "status": status,
        }
    )


SERVED = make_mdep("base", "mine")


def make_pod(*, ready: bool = True, since: str = "2026-11-23T09:00:00Z", restarts: int = 0, **entry: Any) -> Obj:
    told = {
        "name": "gateway",
        "image": "codetune-operator:1",
        "ready": ready,
        "started": True,
        "restartCount": restarts,
        "state": {"running": {"startedAt": since}},
        **entry,
    }
    metadata = {"name": "p1", "creationTimestamp": "2026-11-23T09:00:00Z"}
    return {"metadata": metadata, "status": {"phase": "Running", "containerStatuses": [told]}}


def view(team: Team, *deployments: ModelDeployment, **more: Any) -> TeamView:
    """Before anything was made; the Projects `shop` and `app` are there."""
    found = {deployment.metadata.name: deployment for deployment in deployments}
    return replace(TeamView(team, modeldeployments=found, projects=frozenset({"shop", "app"})), **more)


def rolled(seen: TeamView, wanted: int = 1, available: int = 1, *, updated: int | None = None, **more: Any) -> TeamView:
    """The Deployment as it was applied for just this view, with so many pods that answer."""
    (applied,) = [child for child in reconcile(seen, SETTINGS, NOW).apply if child["kind"] == "Deployment"]
    status = {
        "observedGeneration": 1,
        "replicas": wanted,
        "readyReplicas": available,
        "updatedReplicas": wanted if updated is None else updated,
        "availableReplicas": available,
    }
    live = {**applied, "metadata": {**applied["metadata"], "generation": 1}, "status": status}
    pods = (make_pod(ready=available > 0),) if wanted else ()
    return replace(seen, **{"deployment": live, "pods": pods, **more})


def status_of(plan: Plan) -> TeamStatus:
    assert isinstance(plan.status, TeamStatus)
    return plan.status


def picture(status: TeamStatus) -> tuple[str | None, str, str, str | None]:
    """Phase, status and reason of Ready, and which abnormal condition there is."""
    (ready,) = [entry for entry in status.conditions if entry.type == "Ready"]
    abnormal = [entry.type for entry in status.conditions if entry.type in {"Reconciling", "Stalled"}]
    return status.phase, ready.status, ready.reason, abnormal[0] if abnormal else None


def say(status: TeamStatus, kind: str = "Ready") -> str:
    return next(entry.message for entry in status.conditions if entry.type == kind)


BACKOFF: Obj = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
BOOM: Obj = {"state": BACKOFF, "started": False, "lastState": {"terminated": {"exitCode": 1, "message": "boom"}}}
PULL: Obj = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}, "started": False}
UNSCHEDULED: Obj = {
    "metadata": {"name": "p1"},
    "spec": {"containers": [{"name": "gateway", "resources": {"requests": {"memory": "512Mi"}}}]},
    "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1"}]},
}
SILENT = make_pod(ready=False)
FRESH = "2026-11-23T09:59:55Z"

LIFE = [
    pytest.param(("Pending", "False", "Pending", "Reconciling"), view(make_team(), SERVED), id="just made"),
    pytest.param(
        ("Starting", "False", "Starting", "Reconciling"),
        rolled(view(make_team(), SERVED), 1, 0, pods=(make_pod(ready=False, since=FRESH),)),
        id="the first pod starts",
    ),
    pytest.param(("Ready", "True", "Serving", None), rolled(view(make_team(), SERVED)), id="a default"),
    pytest.param(("Ready", "True", "Serving", None), rolled(view(make_team(SHOP), SERVED)), id="and a project"),
    pytest.param(
        ("Failed", "False", "NoApiKeys", "Stalled"),
        rolled(view(make_team(), SERVED), 1, 0),
        id="it runs and admits nobody",
    ),
    pytest.param(
        ("Failed", "False", "NoApiKeys", "Stalled"),
        rolled(view(make_team()), 1, 0),
        id="nor has it a model",
    ),
    pytest.param(
        ("Updating", "False", "Rolling", "Reconciling"),
        rolled(view(make_team(replicas=2), SERVED), 2, 1, pods=(make_pod(), SILENT)),
        id="one of two admits somebody",
    ),
    pytest.param(
        ("Starting", "False", "Starting", "Reconciling"),
        rolled(view(make_team(), SERVED), 1, 0, pods=(make_pod(ready=False, started=False),)),
        id="its program has not come up for long",
    ),
    pytest.param(
        ("Starting", "False", "Starting", "Reconciling"),
        rolled(
            view(make_team(), SERVED), 1, 0, pods=({**SILENT, "metadata": {"name": "p1", "deletionTimestamp": FRESH}},)
        ),
        id="a pod that is going admits nobody",
    ),
    pytest.param(
        ("Updating", "False", "Rolling", "Reconciling"),
        rolled(view(make_team(), SERVED), updated=0),
        id="pods are being replaced",
    ),
    pytest.param(
        ("Updating", "False", "Rolling", "Reconciling"),
        replace(view(make_team(SHOP), SERVED), deployment=rolled(view(make_team(), SERVED)).deployment),
        id="routes changed, the Deployment does not know yet",
    ),
    pytest.param(
        ("Updating", "False", "Rolling", "Reconciling"),
        rolled(view(make_team(replicas=3), SERVED), 1),
        id="scaled, the Deployment does not know yet",
    ),
    pytest.param(
        ("Stopped", "True", "ScaledToZero", None),
        rolled(view(make_team(replicas=0), SERVED), 0, 0),
        id="no replicas",
    ),
    pytest.param(
        ("Stopped", "True", "ScaledToZero", None), rolled(view(make_team(replicas=0)), 0, 0), id="nor a model"
    ),
    pytest.param(
        ("Updating", "False", "Rolling", "Reconciling"), rolled(view(make_team(replicas=0), SERVED)), id="being stopped"
    ),
    pytest.param(
        ("Starting", "False", "CrashLoop", "Reconciling"),
        rolled(view(make_team(), SERVED), 1, 0, pods=(make_pod(ready=False, restarts=1, **BOOM),)),
        id="crashed once",
    ),
    pytest.param(
        ("Failed", "False", "CrashLoop", "Stalled"),
        rolled(view(make_team(), SERVED), 1, 0, pods=(make_pod(ready=False, restarts=5, **BOOM),)),
        id="crashes again and again",
    ),
    pytest.param(
        ("Updating", "False", "CrashLoop", "Stalled"),
        rolled(view(make_team(replicas=2), SERVED), 2, 1, pods=(make_pod(ready=False, restarts=5, **BOOM),)),
        id="one of two crashes",
    ),
    pytest.param(
        ("Starting", "False", "ImagePull", "Reconciling"),
        rolled(view(make_team(), SERVED), 1, 0, pods=(make_pod(ready=False, **PULL),)),
        id="no image",
    ),
    pytest.param(
        ("Starting", "False", "Unschedulable", "Reconciling"),
        rolled(view(make_team(), SERVED), 1, 0, pods=(UNSCHEDULED,)),
        id="no room",
    ),
    pytest.param(
        ("Updating", "False", "DeploymentNotFound", "Reconciling"), rolled(view(make_team())), id="no deployment"
    ),
    pytest.param(
        ("Updating", "False", "ModelNotServed", "Reconciling"),
        rolled(view(make_team(), make_mdep(reason="Starting", waits=True))),
        id="the deployment starts",
    ),
    pytest.param(
        ("Updating", "False", "ModelNotServed", "Reconciling"),
        rolled(view(make_team(), make_mdep(reason="ScaledToZero"))),
        id="the deployment is stopped",
    ),
    pytest.param(
        ("Failed", "False", "ModelNotServed", "Stalled"),
        rolled(view(make_team(), make_mdep(reason="GatedModel"))),
        id="the deployment has failed",
    ),
    pytest.param(
        ("Failed", "False", "ModelNotServed", "Stalled"),
        rolled(view(make_team(SHOP), make_mdep("base"))),
        id="the deployment has no such adapter",
    ),
    pytest.param(
        ("Updating", "False", "ModelNotServed", "Reconciling"),
        rolled(view(make_team(SHOP), make_mdep("base", generation=2))),
        id="the deployment was just edited",
    ),
    pytest.param(
        ("Updating", "False", "ModelNotServed", "Reconciling"),
        rolled(view(make_team(SHOP), make_mdep("base", adapterSelector={}))),
        id="the deployment may find it by its labels",
    ),
    pytest.param(
        ("Updating", "False", "ProjectNotFound", "Reconciling"),
        rolled(view(make_team(SHOP), SERVED, projects=frozenset())),
        id="no project",
    ),
    pytest.param(
        ("Failed", "False", "ModelNotServed", "Stalled"),
        rolled(view(make_team(SHOP), make_mdep("base"), projects=frozenset())),
        id="what lasts comes first",
    ),
]


@pytest.mark.parametrize(("expected", "seen"), LIFE)
def test_a_team_says_how_it_is_doing(expected: tuple[str, str, str, str | None], seen: TeamView) -> None:
    plan = reconcile(seen, SETTINGS, NOW)
    assert picture(status_of(plan)) == expected
    assert status_of(plan).observed_generation == 2
    assert {child["kind"] for child in plan.apply} >= {"ConfigMap", "Service", "Deployment"}


@pytest.mark.parametrize(("expected", "seen"), LIFE)
def test_whatever_stalls_it_is_its_failure_or_that_of_a_model(expected: object, seen: TeamView) -> None:
    status = status_of(reconcile(seen, SETTINGS, NOW))
    stalled = {entry.reason for entry in status.conditions if entry.type == "Stalled"}
    told = {model.reason for model in status.models if not model.ready}
    assert stalled <= told | {status.failure.reason if status.failure else None}


def test_a_project_that_is_not_there_loses_nothing_that_works() -> None:
    seen = rolled(view(make_team(SHOP), SERVED, projects=frozenset()))
    plan = reconcile(seen, SETTINGS, NOW)
    model = status_of(plan).models[1]
    assert (model.ready, model.reason) == (True, "ProjectNotFound")
    assert "spec.projects[0].projectRef names Project 'shop'" in model.message
    there = reconcile(replace(seen, projects=frozenset({"shop"})), SETTINGS, NOW)
    assert plan.apply == there.apply


def test_what_is_amiss_with_one_model_says_that_the_rest_is_served() -> None:
    others = [{"projectRef": {"name": "app"}, "completionModel": completes("other")}, SHOP]
    status = status_of(reconcile(rolled(view(make_team(*others), SERVED)), SETTINGS, NOW))
    assert picture(status) == ("Updating", "False", "DeploymentNotFound", "Reconciling")
    assert say(status).endswith("The rest is served.")
    assert [model.ready for model in status.models] == [True, False, True]


def test_several_models_that_do_not_answer_are_counted() -> None:
    status = status_of(reconcile(rolled(view(make_team(SHOP))), SETTINGS, NOW))
    assert "(1 more like this)" in say(status)


def test_a_lack_of_keys_is_told_in_time_though_nothing_happens() -> None:
    seen = rolled(view(make_team(), SERVED), 1, 0, pods=(make_pod(ready=False, since=FRESH),))
    plan = reconcile(seen, SETTINGS, NOW)
    assert plan.requeue_after == 10
    later = reconcile(seen, SETTINGS, datetime(2026, 11, 23, 10, 0, 10, tzinfo=UTC))
    assert picture(status_of(later)) == ("Failed", "False", "NoApiKeys", "Stalled")
    assert "Secret 'web-keys' does not exist or holds no key" in say(status_of(later))
    assert "one key a line" in (failure.hint if (failure := status_of(later).failure) else "")
    assert later.requeue_after == LOOK_AGAIN_SECONDS
    assert [(event.type, event.reason) for event in later.events if event.type == "Warning"] == [
        ("Warning", "NoApiKeys")
    ]


def test_numbers_and_the_endpoint_are_those_of_the_gateway() -> None:
    status = status_of(reconcile(rolled(view(make_team(replicas=2), SERVED), 2, 1), SETTINGS, NOW))
    assert (status.replicas, status.ready_replicas) == (2, 1)
    assert status.endpoint == "http://web-gateway.ns.svc:8000"
    assert say(status, "Available") == "1 of 2 replicas answer requests."


def test_the_endpoint_is_an_address_where_there_is_no_dns() -> None:
    settings = Settings(endpoint="ClusterIP")
    assert status_of(reconcile(view(make_team()), settings, NOW)).endpoint is None
    service = {"spec": {"clusterIP": "10.96.0.9"}}
    found = reconcile(view(make_team(service={"port": 80}), service=service), settings, NOW)
    assert status_of(found).endpoint == "http://10.96.0.9:80"


def test_policies_go_when_they_are_not_asked_for_any_more() -> None:
    there = tuple(
        {"kind": kind, "metadata": {"name": "web-gateway", "uid": kind[:3]}}
        for kind in ("PodDisruptionBudget", "NetworkPolicy")
    )
    kept = reconcile(view(make_team(replicas=2), SERVED, policies=there), SETTINGS, NOW)
    gone = reconcile(view(make_team(networkPolicy={"enabled": False}), SERVED, policies=there), SETTINGS, NOW)
    assert kept.delete == ()
    assert gone.delete == (
        ChildRef("policy/v1", "PodDisruptionBudget", "web-gateway", "Pod"),
        ChildRef("networking.k8s.io/v1", "NetworkPolicy", "web-gateway", "Net"),
    )


def test_a_team_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    team = make_team(metadata={"deletionTimestamp": "2026-11-23T09:59:00Z"})
    assert reconcile(rolled(view(make_team(), SERVED), team=team), SETTINGS, NOW) == Plan()


@pytest.mark.parametrize(
    "last", [{"reason": "OOMKilled", "exitCode": 137}, {"exitCode": 137}], ids=["its limit", "the node's memory"]
)
def test_a_hint_speaks_of_what_a_team_has(last: Obj) -> None:
    pod = make_pod(ready=False, restarts=5, state=BACKOFF, lastState={"terminated": last})
    failure = status_of(reconcile(rolled(view(make_team(), SERVED), 1, 0, pods=(pod,)), SETTINGS, NOW)).failure
    assert failure is not None
    assert "spec.resources" not in failure.hint
    assert "512Mi" in failure.hint
    assert "spec.replicas" in failure.hint


def after(team: Team, seen: TeamView) -> Team:
    """The Team with the status that this view gave it."""
    return team.model_copy(update={"status": status_of(reconcile(seen, SETTINGS, NOW))})


READY = rolled(view(make_team(SHOP), SERVED))
BROKEN = {"name": "mine", "phase": "Failed", "reason": "DigestMismatch", "message": "Other bytes."}
HALF = make_mdep("base", states=[BROKEN])
EVENTS = [
    pytest.param(["ModelReady", "ModelReady", "Ready"], view(make_team(SHOP)), READY, id="it became ready"),
    pytest.param([], READY, READY, id="nothing new"),
    pytest.param(["ModelNotServed"], READY, rolled(view(make_team(SHOP), HALF)), id="a model stopped being served"),
    pytest.param(["ModelReady", "Ready"], rolled(view(make_team(SHOP), HALF)), READY, id="and is served again"),
    pytest.param([], view(make_team(SHOP)), rolled(view(make_team(SHOP))), id="what was never served is waited for"),
    pytest.param(["Stopped"], READY, rolled(view(make_team(SHOP, replicas=0), SERVED), 0, 0), id="it was stopped"),
    pytest.param(
        ["CrashLoop"],
        READY,
        replace(READY, pods=(make_pod(ready=False, restarts=5, **BOOM),)),
        id="a pod crashes",
    ),
    pytest.param(["NoApiKeys"], READY, rolled(view(make_team(SHOP), SERVED), 1, 0), id="its keys are gone"),
    pytest.param(
        ["ModelReady"],
        rolled(view(make_team({**SHOP, "completionModel": completes()}), SERVED)),
        READY,
        id="another model",
    ),
]


@pytest.mark.parametrize(("expected", "before", "now"), EVENTS)
def test_events_tell_of_changes_worth_seeing(expected: list[str], before: TeamView, now: TeamView) -> None:
    plan = reconcile(replace(now, team=after(now.team, before)), SETTINGS, NOW)
    assert [event.reason for event in plan.events] == expected


def test_an_event_names_project_model_and_deployment() -> None:
    plan = reconcile(READY, SETTINGS, NOW)
    assert plan.events[:2] == (
        EventSpec("Normal", "ModelReady", "Where no project is named, 'base' of ModelDeployment 'coder' answers."),
        EventSpec("Normal", "ModelReady", "For project 'shop' 'mine' of ModelDeployment 'coder' answers."),
    )
