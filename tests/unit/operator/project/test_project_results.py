"""What is made of a scan that ended: the status, its log until it is read, the Job that goes, what a failure leaves."""

from codetune_operator.reconcile.project import reconcile
from codetune_operator.resources.project.scan import scan_digest, scan_job_name, scan_nonce
from unit.operator.project.situations import (
    GIT,
    NEW,
    NO_REPOSITORY,
    NOW,
    OTHER,
    READ,
    RESULT,
    REVISION,
    RUNNING,
    SETTINGS,
    make_job,
    make_pod,
    make_project,
    read_status,
    scanned,
    view,
)


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
