"""ModelDeployments, their adapters' runs, Deployments and pods as they are observed in the situations of their life."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from codetune_api.contracts import ServerReport
from codetune_api.finetune import FineTune
from codetune_api.modeldeployment import ModelDeployment, ModelDeploymentStatus
from codetune_operator.reconcile.observed import ModelDeploymentView
from codetune_operator.reconcile.plan import Plan
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
