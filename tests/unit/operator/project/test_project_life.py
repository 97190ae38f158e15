"""The life of a Project: what was observed in, the phase, the children and the words out. One row, one situation."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from codetune_api.contracts import ScanResult
from codetune_api.project import FileType, Project, ProjectStatus
from codetune_api.protocol import ResultEvent
from codetune_operator.reconcile.observed import ProjectView
from codetune_operator.reconcile.plan import Plan
from codetune_operator.reconcile.project import reconcile
from codetune_operator.reconcile.project.sources import seconds_to_retry
from codetune_operator.resources.project.scan import build_scan, rules_digest, scan_digest, scan_job_name, scan_nonce
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

LIFE = [
    pytest.param(("Scanning", "ScanStarted", "being scanned"), view(NEW), id="just made"),
    pytest.param(("Scanning", "NoPod", "no pod"), view(NEW, jobs=(make_job(),)), id="job without a pod"),
    pytest.param(
        ("Scanning", "NoPod", "refuses to create them"),
        view(NEW, jobs=(make_job(creationTimestamp=LONG_AGO),)),
        id="job that gets no pod",
    ),
    pytest.param(
        ("Scanning", "JobSuspended", "whoever did so, as Kueue does"),
        view(NEW, jobs=({**make_job(creationTimestamp=LONG_AGO), "spec": {"suspend": True}},)),
        id="job that somebody suspends",
    ),
    pytest.param(
        ("Scanning", "NoPod", "no pod yet"),
        view(NEW, jobs=(make_job(creationTimestamp=LONG_AGO),), report=RunReport(stage="Scanning")),
        id="job whose pod is gone",
    ),
    pytest.param(
        ("Scanning", "PodStarting", "p1 is starting"),
        view(NEW, jobs=(make_job(),), pods=(make_pod(phase="Pending"),)),
        id="pod is made",
    ),
    pytest.param(
        ("Scanning", "Scanning", "Cloning"),
        view(NEW, jobs=(make_job(),), pods=(make_pod(RUNNING),), report=RunReport(stage="Cloning")),
        id="at work",
    ),
    pytest.param(
        ("Scanning", "Unschedulable", "asks for"),
        view(NEW, jobs=(make_job(),), pods=(make_pod(phase="Pending", conditions=UNSCHEDULED),)),
        id="no node takes it",
    ),
    pytest.param(
        ("Scanning", "ImagePull", "cannot be pulled"),
        view(NEW, jobs=(make_job(),), pods=(make_pod({"waiting": {"reason": "ErrImagePull"}}, phase="Pending"),)),
        id="image missing",
    ),
    pytest.param(
        ("Scanning", "StartError", "Secret 'deploy-key' of source 'app'"),
        view(
            SECRETIVE,
            jobs=(make_job(SECRETIVE),),
            pods=(make_pod(phase="Pending", started=LONG_AGO, project=SECRETIVE),),
        ),
        id="waits for a secret",
    ),
    pytest.param(
        ("Scanning", "Restarting", "No route."),
        view(NEW, jobs=(make_job(),), pods=(make_pod(NETWORK, phase="Failed"),)),
        id="between two attempts",
    ),
    pytest.param(
        ("Scanning", "ReadingResult", "being read"), view(NEW, jobs=(make_job(condition="Complete"),)), id="to be read"
    ),
    pytest.param(
        ("Ready", "Scanned", "8 of 10 files accepted: 7 to train on, 1 held out."),
        view(NEW, jobs=(make_job(condition="Complete"),), report=READ),
        id="result read",
    ),
    pytest.param(
        ("Ready", "Scanned", "1 held out. No file is of these types in files.types: .pyx."),
        view(NEW, jobs=(make_job(condition="Complete"),), report=RunReport(result=ResultEvent(scan=SLIPPED))),
        id="result read, with a type that no file is of",
    ),
    pytest.param(
        ("Failed", "InternalError", "log was gone"),
        view(NEW, jobs=(make_job(condition="Complete", at=LONG_AGO),)),
        id="result lost",
    ),
    pytest.param(
        ("Scanning", "ReadingResult", "being read"),
        view(
            NEW,
            jobs=(make_job(condition="Complete", at=LONG_AGO),),
            pods=(make_pod({"terminated": {"exitCode": 0}}, phase="Succeeded"),),
        ),
        id="done while the operator was down, log still to be read",
    ),
    pytest.param(
        ("Failed", "InternalError", "log was gone"),
        view(
            NEW,
            jobs=(make_job(condition="Complete", at=LONG_AGO),),
            pods=(make_pod({"terminated": {"exitCode": 0}}, phase="Succeeded"),),
            read_logs=frozenset({("p1", "scan")}),
        ),
        id="done while the operator was down, no result in the log",
    ),
    pytest.param(
        ("Failed", "RevisionNotFound", "no branch x"),
        view(NEW, jobs=(make_job(condition="Failed"),), pods=(make_pod(NO_REPOSITORY, phase="Failed"),)),
        id="failed for good",
    ),
    pytest.param(
        ("Failed", "SourceUnavailable", "No route."),
        view(NEW, jobs=(make_job(condition="Failed"),), pods=(make_pod(NETWORK, phase="Failed"),)),
        id="failed for now",
    ),
    pytest.param(
        ("Failed", "InternalError", "neither it nor its pod says why"),
        view(NEW, jobs=(make_job(condition="Failed"),)),
        id="failed without a word",
    ),
    pytest.param(("Ready", "Scanned", "8 of 10"), view(scanned()), id="at rest"),
    pytest.param(
        ("Scanning", "ScanStarted", "being scanned"),
        view(scanned(NEW).model_copy(update={"spec": OTHER.spec})),
        id="rules edited",
    ),
    pytest.param(
        ("Scanning", "ReplacingScan", "former scan"),
        view(OTHER, jobs=(make_job(NEW),)),
        id="edited while a scan runs",
    ),
    pytest.param(
        ("Scanning", "ReplacingScan", "being removed"),
        view(NEW, jobs=(make_job(deletionTimestamp=BEFORE),)),
        id="job goes away",
    ),
    pytest.param(("Failed", "EmptyDataset", "It broke."), view(failed("EmptyDataset")), id="failed, at rest"),
    pytest.param(
        ("Failed", "SourceUnavailable", "tried again by itself"),
        view(failed("SourceUnavailable"), jobs=(make_job(condition="Failed"),)),
        id="failed, retried later",
    ),
    pytest.param(
        ("Scanning", "Retrying", "tried again"),
        view(failed("SourceUnavailable"), jobs=(make_job(condition="Failed", at="2026-11-23T08:00:10Z"),)),
        id="failed, retried now",
    ),
    pytest.param(("Suspended", "Suspended", "to false"), view(PAUSED), id="suspended without data"),
    pytest.param(("Suspended", "Suspended", "8 of 10"), view(scanned(PAUSED)), id="suspended with data"),
]


@pytest.mark.parametrize(("expected", "observed"), LIFE)
def test_each_situation_has_its_phase_reason_and_words(expected: tuple[str, str, str], observed: ProjectView) -> None:
    plan = reconcile(observed, SETTINGS, NOW)

    status = read_status(plan)
    ready = status.conditions[0]
    assert (status.phase, ready.reason) == expected[:2]
    assert expected[2] in ready.message
    assert status.observed_generation == 2


TRIED_AGAIN = {"result lost", "done while the operator was down, no result in the log"}
"""A look after these is another one: the time for the next attempt has come."""


@pytest.mark.parametrize(
    "observed", [pytest.param(*row.values[1:], id=row.id) for row in LIFE if row.id not in TRIED_AGAIN]
)
def test_looking_again_at_its_own_status_changes_nothing_and_says_nothing(observed: ProjectView) -> None:
    first = reconcile(observed, SETTINGS, NOW)
    seen = observed.project.model_copy(update={"status": read_status(first)})

    again = reconcile(replace(observed, project=seen), SETTINGS, NOW + timedelta(seconds=5))

    assert again.events == ()
    assert read_status(again).phase == read_status(first).phase
    assert read_status(again).failure == read_status(first).failure
    assert [entry.last_transition_time for entry in read_status(again).conditions if entry.type == "Ready"] == [
        entry.last_transition_time for entry in read_status(first).conditions if entry.type == "Ready"
    ]


KSTATUS = [
    pytest.param({"Ready": "True"}, view(scanned()), id="ready"),
    pytest.param({"Ready": "True"}, view(scanned(PAUSED)), id="suspended with data"),
    pytest.param({"Ready": "False"}, view(PAUSED), id="suspended without data"),
    pytest.param({"Ready": "False", "Reconciling": "True"}, view(NEW), id="scanning"),
    pytest.param({"Ready": "False", "Stalled": "True"}, view(failed("EmptyDataset")), id="failed for good"),
    pytest.param(
        {"Ready": "False", "Reconciling": "True"},
        view(failed("SourceUnavailable"), jobs=(make_job(condition="Failed"),)),
        id="failed for now",
    ),
]


@pytest.mark.parametrize(("expected", "observed"), KSTATUS)
def test_conditions_are_as_kstatus_reads_them(expected: dict[str, str], observed: ProjectView) -> None:
    conditions = read_status(reconcile(observed, SETTINGS, NOW)).conditions

    assert {condition.type: condition.status for condition in conditions} == expected


def test_a_new_project_gets_finalizer_claim_and_scan() -> None:
    bare = make_project(metadata={"finalizers": []})

    plan = reconcile(view(bare, claim=None), SETTINGS, NOW)

    assert plan.finalizer == "Add"
    assert [obj["kind"] for obj in plan.apply] == ["PersistentVolumeClaim", "ConfigMap", "Job"]


def test_a_claim_that_is_there_is_left_as_it_is() -> None:
    assert [obj["kind"] for obj in reconcile(view(NEW), SETTINGS, NOW).apply] == ["ConfigMap", "Job"]


def test_the_result_becomes_the_status() -> None:
    status = read_status(reconcile(view(NEW, jobs=(make_job(condition="Complete"),), report=READ), SETTINGS, NOW))

    assert status.revision == REVISION
    assert status.uri == "pvc://codetune-artifacts/ns/projects/mine/aa"
    assert status.sources == RESULT.sources
    assert status.file_types == RESULT.file_types
    assert status.rejections == RESULT.rejections
    assert status.config_digest == scan_digest(NEW)
    assert status.scanned_at == "2026-11-23T10:00:00Z"
    assert status.job_name is None


def test_the_job_is_removed_only_when_its_result_is_in_status() -> None:
    job = make_job(condition="Complete")

    writing = reconcile(view(NEW, jobs=(job,), report=READ), SETTINGS, NOW)
    after = reconcile(view(scanned(), jobs=(job,), report=READ), SETTINGS, NOW)

    assert writing.delete == ()
    assert [(child.kind, child.name) for child in after.delete] == [
        ("ConfigMap", scan_job_name(NEW)),
        ("Job", scan_job_name(NEW)),
    ]


def test_a_failed_scan_keeps_the_data_of_the_last_good_one() -> None:
    edited = scanned(NEW).model_copy(update={"spec": OTHER.spec})
    pods = (make_pod(NO_REPOSITORY, phase="Failed", project=OTHER),)

    status = read_status(reconcile(view(edited, jobs=(make_job(OTHER, condition="Failed"),), pods=pods), SETTINGS, NOW))

    assert status.phase == "Failed"
    assert status.revision == REVISION
    assert status.files == RESULT.files
    assert [(source.commit, source.message) for source in status.sources] == [
        ("c0ffee", "Source 'app' has no branch x. Correct it.")
    ]


def test_only_the_source_that_a_failure_names_is_blamed() -> None:
    two = make_project(sources=[GIT, {"name": "lib", "git": {"url": "https://git.example.org/lib.git"}}])
    pods = (make_pod(NO_REPOSITORY, phase="Failed", project=two),)

    status = read_status(reconcile(view(two, jobs=(make_job(two, condition="Failed"),), pods=pods), SETTINGS, NOW))

    assert {source.name: bool(source.message) for source in status.sources} == {"app": True, "lib": False}


RESCANS = [
    pytest.param(False, make_project(), id="nothing changed"),
    pytest.param(False, make_project(suspend=False), id="suspend is no reason"),
    pytest.param(True, make_project(files={"maxBytes": 10}), id="rules"),
    pytest.param(True, make_project(holdout={"fraction": 0.2}), id="holdout"),
    pytest.param(True, make_project(sources=[PRIVATE]), id="sources"),
    pytest.param(True, make_project(metadata={"annotations": {"codetune.dev/rescan": "1"}}), id="rescan annotation"),
    pytest.param(False, make_project(metadata={"annotations": {"other": "1"}}), id="another annotation"),
]


@pytest.mark.parametrize(("expected", "project"), RESCANS)
def test_a_project_is_scanned_again_when_what_it_is_made_from_changed(expected: bool, project: Project) -> None:
    plan = reconcile(view(project.model_copy(update={"status": scanned(NEW).status})), SETTINGS, NOW)

    assert bool(plan.apply) is expected


PAUSES = [
    pytest.param(60, "2026-11-23T10:00:00Z", "2026-11-23T10:00:05Z", id="the first retry after a minute"),
    pytest.param(300, "2026-11-23T10:00:00Z", "2026-11-23T10:05:00Z", id="as long as the trouble lasts"),
    pytest.param(3600, "2026-11-22T10:00:00Z", "2026-11-23T10:00:00Z", id="at most an hour"),
]


@pytest.mark.parametrize(("expected", "since", "ended"), PAUSES)
def test_pauses_between_retries_grow_with_the_trouble(expected: float, since: str, ended: str) -> None:
    assert seconds_to_retry(since, ended, datetime.fromisoformat(ended)) == expected


def test_a_retry_is_a_scan_of_its_own_and_follows_when_the_failed_one_is_removed() -> None:
    job = make_job(condition="Failed", at="2026-11-23T08:00:10Z")

    counted = reconcile(view(failed("SourceUnavailable"), jobs=(job,)), SETTINGS, NOW)
    again = NEW.model_copy(update={"status": read_status(counted)})
    removing = reconcile(view(again, jobs=(job,)), SETTINGS, NOW)
    after = reconcile(view(again), SETTINGS, NOW)

    assert again.status.retries == 1
    assert [(child.kind, child.name) for child in removing.delete] == [
        ("ConfigMap", scan_job_name(NEW)),
        ("Job", scan_job_name(NEW)),
    ]
    assert [obj["metadata"]["name"] for obj in after.apply] == [scan_job_name(again)] * 2
    assert scan_job_name(again) != scan_job_name(NEW)


def test_a_scan_that_had_failed_is_made_anew_after_a_suspension() -> None:
    broken = failed("EmptyDataset", project=PAUSED)
    paused = read_status(reconcile(view(broken), SETTINGS, NOW))

    plan = reconcile(view(NEW.model_copy(update={"status": paused})), SETTINGS, NOW)

    assert [obj["kind"] for obj in plan.apply] == ["ConfigMap", "Job"]


def test_suspending_stops_the_scan_that_runs() -> None:
    plan = reconcile(view(PAUSED, jobs=(make_job(PAUSED),), pods=(make_pod(RUNNING),)), SETTINGS, NOW)

    assert [child.kind for child in plan.delete] == ["ConfigMap", "Job"]
    assert plan.follow == ()


def test_logs_are_followed_from_the_start_of_the_container_until_the_result_is_in_status() -> None:
    job, pod = make_job(condition="Complete"), make_pod({"terminated": {"exitCode": 0}}, phase="Succeeded")

    waiting = reconcile(view(NEW, jobs=(make_job(),), pods=(make_pod(phase="Pending"),)), SETTINGS, NOW)
    running = reconcile(view(NEW, jobs=(make_job(),), pods=(make_pod(RUNNING),)), SETTINGS, NOW)
    ended = reconcile(view(NEW, jobs=(job,), pods=(pod,)), SETTINGS, NOW)
    read = reconcile(view(scanned(), jobs=(job,), pods=(pod,)), SETTINGS, NOW)

    assert waiting.follow == ()
    assert [(follow.pod, follow.nonce, follow.finished) for follow in running.follow] == [
        ("p1", scan_nonce(NEW), False)
    ]
    assert [follow.finished for follow in ended.follow] == [True]
    assert read.follow == ()


def test_a_person_hears_of_start_end_and_failure_once() -> None:
    started = reconcile(view(NEW), SETTINGS, NOW)
    done = reconcile(view(NEW, jobs=(make_job(condition="Complete"),), report=READ), SETTINGS, NOW)
    broken = reconcile(
        view(NEW, jobs=(make_job(condition="Failed"),), pods=(make_pod(NO_REPOSITORY, phase="Failed"),)), SETTINGS, NOW
    )

    assert [event.reason for event in started.events] == ["ScanStarted"]
    assert [event.reason for event in done.events] == ["Scanned"]
    assert [(event.type, event.message) for event in broken.events] == [
        ("Warning", "Source 'app' has no branch x. Correct it.")
    ]


def read_status(plan: Plan) -> ProjectStatus:
    assert isinstance(plan.status, ProjectStatus)
    return plan.status
