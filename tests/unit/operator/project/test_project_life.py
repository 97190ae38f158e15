"""The life of a Project: what was observed in, the phase, the children and the words out. One row, one situation."""

from dataclasses import replace
from datetime import timedelta

import pytest
from codetune_api.protocol import ResultEvent
from codetune_operator.reconcile.observed import ProjectView
from codetune_operator.reconcile.project import reconcile
from codetune_operator.runs.report import RunReport
from unit.operator.project.situations import (
    BEFORE,
    LONG_AGO,
    NETWORK,
    NEW,
    NO_REPOSITORY,
    NOW,
    OTHER,
    PAUSED,
    READ,
    RUNNING,
    SECRETIVE,
    SETTINGS,
    SLIPPED,
    UNSCHEDULED,
    failed,
    make_job,
    make_pod,
    read_status,
    scanned,
    view,
)

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


@pytest.mark.parametrize(("expected", "observed"), LIFE)
def test_whatever_stalls_it_is_its_failure(expected: tuple[str, str, str], observed: ProjectView) -> None:
    status = read_status(reconcile(observed, SETTINGS, NOW))

    stalled = {entry.reason for entry in status.conditions if entry.type == "Stalled"}
    assert stalled <= {status.failure.reason if status.failure else None}


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
