"""Projects, Jobs and pods as they are observed in the situations of a Project's life."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from codetune_api.contracts import ScanResult
from codetune_api.project import FileType, Project, ProjectStatus
from codetune_api.protocol import ResultEvent
from codetune_operator.reconcile.observed import ProjectView
from codetune_operator.reconcile.plan import Plan
from codetune_operator.resources.project.scan import build_scan, rules_digest, scan_digest, scan_job_name
from codetune_operator.runs.report import RunReport
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
BEFORE = "2026-11-23T09:59:50Z"
LONG_AGO = "2026-11-23T08:00:00Z"
SETTINGS = Settings()
REVISION = "sha256:" + "a" * 64
CLAIM: Obj = {"metadata": {"name": "codetune-artifacts"}}
GIT: Obj = {"name": "app", "git": {"url": "https://git.example.org/app.git"}}
PRIVATE: Obj = {**GIT, "credentialsSecretRef": {"name": "deploy-key"}}


def make_project(status: Obj | None = None, metadata: Obj | None = None, **spec: Any) -> Project:
    return Project.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "Project",
            "metadata": {
                "name": "mine",
                "namespace": "ns",
                "uid": "u1",
                "generation": 2,
                "finalizers": ["codetune.dev/artifacts"],
                **(metadata or {}),
            },
            "spec": {"sources": [GIT], **spec},
            "status": status or {},
        }
    )


NEW = make_project()
RESULT = ScanResult.model_validate(
    {
        "revision": REVISION,
        "uri": "ns/projects/mine/aa",
        "sources": [{"name": "app", "commit": "c0ffee", "files": 10, "bytes": 100}],
        "fileTypes": [{"type": "Python", "extensions": [".py"], "files": 10, "accepted": 8, "rejected": 2}],
        "files": {"total": 10, "accepted": 8, "rejected": 2, "trained": 7, "heldOut": 1, "bytes": 90},
        "rejections": [{"reason": "TooLarge", "files": 2, "examples": ["a.py", "b.py"]}],
    }
)
READ = RunReport(result=ResultEvent(scan=RESULT))
SLIPPED = RESULT.model_copy(update={"file_types": [*RESULT.file_types, FileType(type=".pyx")]})


def scanned(project: Project = NEW, **more: Any) -> Project:
    """The Project after its scan, as its own status tells it."""
    told = {
        **RESULT.model_dump(mode="json", by_alias=True),
        "phase": "Ready",
        "configDigest": scan_digest(project),
        "rulesDigest": rules_digest(project),
        "scannedAt": BEFORE,
        **more,
    }
    return project.model_copy(update={"status": ProjectStatus.from_wire(told)})


def failed(reason: str, *, since: str = LONG_AGO, project: Project = NEW) -> Project:
    told = {
        "phase": "Failed",
        "configDigest": scan_digest(project),
        "failure": {"reason": reason, "message": "It broke.", "hint": "Mend it."},
        "conditions": [{"type": "Ready", "status": "False", "reason": reason, "lastTransitionTime": since}],
    }
    return project.model_copy(update={"status": ProjectStatus.from_wire(told)})


def make_job(project: Project = NEW, *, condition: str = "", reason: str = "", at: str = BEFORE, **more: Any) -> Obj:
    _, job = build_scan(project, SETTINGS)
    status: Obj = {}
    if condition:
        status["conditions"] = [{"type": condition, "status": "True", "reason": reason, "lastTransitionTime": at}]
    return {**job, "metadata": {**job["metadata"], "uid": "j1", **more}, "status": status}


def make_pod(state: Obj | None = None, *, phase: str = "Running", **more: Any) -> Obj:
    status: Obj = {"phase": phase, "conditions": more.get("conditions", []), "startTime": more.get("started", BEFORE)}
    if state is not None:
        status["containerStatuses"] = [{"name": "scan", "image": "t", "state": state, "restartCount": 0}]
    labels = {"batch.kubernetes.io/job-name": scan_job_name(more.get("project", NEW))}
    metadata = {"name": "p1", "labels": labels, "creationTimestamp": BEFORE}
    return {"metadata": metadata, "spec": {"containers": [{"name": "scan"}]}, "status": status}


def view(project: Project, **more: Any) -> ProjectView:
    return replace(ProjectView(project=project, claim=CLAIM), **more)


RUNNING: Obj = {"running": {"startedAt": BEFORE}}
NO_REPOSITORY: Obj = {
    "terminated": {
        "exitCode": 64,
        "message": '{"reason":"RevisionNotFound","message":"Source \'app\' has no branch x.","hint":"Correct it."}',
    }
}
NETWORK: Obj = {
    "terminated": {"exitCode": 1, "message": '{"reason":"SourceUnavailable","message":"No route.","hint":"Wait."}'}
}
UNSCHEDULED = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]
OTHER = make_project(files={"types": ["Go"]})
PAUSED = make_project(suspend=True)
SECRETIVE = make_project(sources=[PRIVATE])


def read_status(plan: Plan) -> ProjectStatus:
    assert isinstance(plan.status, ProjectStatus)
    return plan.status
