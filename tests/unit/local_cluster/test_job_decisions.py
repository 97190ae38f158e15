"""What a Job controller decides, against https://kubernetes.io/docs/concepts/workloads/controllers/job/.

Skipped on purpose: backoffLimitPerIndex, successPolicy and managedBy, which the local cluster does not offer.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from codetune_local.controllers.job import reconcile_job
from codetune_local.controllers.job_pods import TRACKING_FINALIZER
from codetune_local.controllers.job_retrying import RetryDelay
from codetune_local.machinery.actions import Announce, Create, Delete, Plan, RemoveFinalizer, WriteStatus
from codetune_local.machinery.times import format_time

Obj = dict[str, Any]
NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
RETRY = RetryDelay(base=10.0, cap=360.0)


def make_job(status: Obj | None = None, **spec: Any) -> Obj:
    template = {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main"}]},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train", "namespace": "team", "uid": "job-uid"},
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 2, "template": template, **spec},
        "status": status if status is not None else {"startTime": format_time(NOW - timedelta(minutes=1))},
    }


def make_pod(name: str, phase: str, *, ago: float = 60, tracked: bool = True, code: int = 1, **more: Any) -> Obj:
    """A pod of the Job; `ago` is when it ended (seconds), `index` and `deleting` may be given."""
    ended = {"exitCode": 0 if phase == "Succeeded" else code, "finishedAt": format_time(NOW - timedelta(seconds=ago))}
    state = {"terminated": ended} if phase in ("Succeeded", "Failed") else {"running": {}}
    metadata: Obj = {
        "name": name,
        "namespace": "team",
        "uid": f"uid-{name}",
        "creationTimestamp": format_time(NOW - timedelta(seconds=ago + 1)),
        "finalizers": [TRACKING_FINALIZER] if tracked else [],
        "ownerReferences": [{"uid": "job-uid", "kind": "Job", "name": "train", "controller": True}],
    }
    if "index" in more:
        metadata["annotations"] = {"batch.kubernetes.io/job-completion-index": str(more["index"])}
    if more.get("deleting"):
        metadata["deletionTimestamp"] = format_time(NOW)
    status = {
        "phase": phase,
        "containerStatuses": [{"name": "main", "state": state, "restartCount": more.get("restarts", 0)}],
        "conditions": more.get("conditions", []),
    }
    return {"metadata": metadata, "spec": {"nodeName": "n"}, "status": status}


def condition(kind: str, reason: str = "R", status: str = "True", ago: float = 0) -> Obj:
    moment = format_time(NOW - timedelta(seconds=ago))
    return {"type": kind, "status": status, "reason": reason, "message": "m", "lastTransitionTime": moment}


def decide(job: Obj, pods: Sequence[Obj] = ()) -> Plan:
    return reconcile_job(job, pods, NOW, RETRY, suffix=lambda: "abcde")


def created(plan: Plan) -> list[Obj]:
    return [action.obj for action in plan.actions if isinstance(action, Create)]


def deleted(plan: Plan) -> list[str]:
    return [action.name for action in plan.actions if isinstance(action, Delete)]


def released(plan: Plan) -> list[str]:
    return [action.name for action in plan.actions if isinstance(action, RemoveFinalizer)]


def written(plan: Plan) -> Obj:
    statuses = [action.status for action in plan.actions if isinstance(action, WriteStatus)]
    assert len(statuses) == 1, "a round writes status once"
    return statuses[0]


def conditions(plan: Plan) -> dict[str, tuple[str, str]]:
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in written(plan)["conditions"]}


def announced(plan: Plan) -> list[str]:
    return [action.event.reason for action in plan.actions if isinstance(action, Announce)]


RUNNING, OK, BAD = "Running", "Succeeded", "Failed"


@pytest.mark.parametrize(
    ("expected", "spec", "pods"),
    [
        pytest.param(1, {}, [], id="one by default"),
        pytest.param(3, {"parallelism": 3, "completions": 5}, [], id="parallelism bounds"),
        pytest.param(2, {"parallelism": 3, "completions": 2}, [], id="completions bound"),
        pytest.param(1, {"parallelism": 3, "completions": 5}, [RUNNING, RUNNING], id="running ones are kept"),
        pytest.param(1, {"parallelism": 3, "completions": 3}, [OK, RUNNING], id="succeeded ones are not repeated"),
        pytest.param(0, {"parallelism": 0}, [], id="parallelism 0 pauses"),
        pytest.param(2, {"parallelism": 2, "completions": None}, [], id="work queue: parallelism workers"),
        pytest.param(0, {"parallelism": 2, "completions": None}, [OK, RUNNING], id="work queue: none after a success"),
        pytest.param(0, {"suspend": True}, [], id="suspended"),
    ],
)
def test_as_many_pods_are_created_as_are_missing(expected: int, spec: Obj, pods: list[str]) -> None:
    job = make_job(**spec)
    plan = decide(job, [make_pod(f"p{number}", phase) for number, phase in enumerate(pods)])
    assert len(created(plan)) == expected


def test_a_pod_is_built_from_the_template_with_owner_labels_and_the_tracking_finalizer() -> None:
    job = make_job()
    job["spec"]["template"]["metadata"]["annotations"] = {"note": "mine"}
    (pod,) = created(decide(job))
    assert pod["metadata"] == {
        "name": "train-abcde",
        "namespace": "team",
        "labels": {
            "app": "x",
            "batch.kubernetes.io/controller-uid": "job-uid",
            "batch.kubernetes.io/job-name": "train",
            "controller-uid": "job-uid",
            "job-name": "train",
        },
        "annotations": {"note": "mine"},
        "finalizers": ["batch.kubernetes.io/job-tracking"],
        "ownerReferences": [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": "train",
                "uid": "job-uid",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    assert pod["spec"] == job["spec"]["template"]["spec"]


def test_a_pod_of_an_indexed_job_knows_its_index() -> None:
    job = make_job(completionMode="Indexed", completions=3, parallelism=2)
    first, second = created(decide(job, [make_pod("p0", OK, index=0)]))
    key = "batch.kubernetes.io/job-completion-index"
    assert [pod["metadata"]["annotations"][key] for pod in (first, second)] == ["1", "2"]
    assert first["metadata"]["labels"][key] == "1"
    assert first["metadata"]["name"] == "train-1-abcde"
    assert first["spec"]["hostname"] == "train-1"
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{key}']"}}
    assert first["spec"]["containers"][0]["env"] == [{"name": "JOB_COMPLETION_INDEX", "valueFrom": source}]


def test_a_failed_index_is_taken_up_again_and_others_are_left_alone() -> None:
    job = make_job(completionMode="Indexed", completions=3, parallelism=3, backoffLimit=6)
    pods = [make_pod("a", OK, index=0), make_pod("b", BAD, index=1), make_pod("c", RUNNING, index=2)]
    assert [pod["metadata"]["name"] for pod in created(decide(job, pods))] == ["train-1-abcde"]


@pytest.mark.parametrize(
    ("seconds", "failures", "ago"),
    [
        pytest.param(10, 1, 0, id="first failure"),
        pytest.param(20, 2, 0, id="second failure"),
        pytest.param(40, 3, 0, id="third failure"),
        pytest.param(360, 9, 0, id="never more than six minutes"),
        pytest.param(4, 1, 6, id="counted from the end of the pod"),
    ],
)
def test_a_failed_pod_is_replaced_after_a_growing_delay(seconds: float, failures: int, ago: float) -> None:
    pods = [make_pod(f"p{number}", BAD, ago=ago + number) for number in range(failures)]
    plan = decide(make_job(backoffLimit=20), pods)
    assert created(plan) == []
    assert plan.look_again == seconds


def test_a_success_ends_the_row_of_failures() -> None:
    pods = [make_pod("a", BAD, ago=50), make_pod("b", OK, ago=2)]
    assert len(created(decide(make_job(completions=3, backoffLimit=9), pods))) == 1


def test_over_the_backoff_limit_the_job_fails() -> None:
    pods = [make_pod(f"p{number}", BAD) for number in range(3)]
    plan = decide(make_job(backoffLimit=2), pods)
    assert conditions(plan) == {"FailureTarget": ("True", "BackoffLimitExceeded")}
    assert created(plan) == []


def test_at_the_backoff_limit_it_still_tries() -> None:
    pods = [make_pod(f"p{number}", BAD, ago=1000) for number in range(2)]
    assert len(created(decide(make_job(backoffLimit=2), pods))) == 1


@pytest.mark.parametrize(
    ("fails", "limit", "restarts"),
    [
        pytest.param(False, 3, 2, id="below"),
        pytest.param(True, 3, 3, id="reached"),
        pytest.param(False, 0, 0, id="none allowed, none seen"),
        pytest.param(True, 0, 1, id="none allowed"),
    ],
)
def test_restarts_of_containers_count_with_on_failure(fails: bool, limit: int, restarts: int) -> None:
    job = make_job(backoffLimit=limit)
    job["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    plan = decide(job, [make_pod("a", RUNNING, restarts=restarts)])
    assert (deleted(plan) == ["a"]) is fails


def test_the_deadline_deletes_what_runs_and_fails_the_job_once_all_has_ended() -> None:
    status = {"startTime": format_time(NOW - timedelta(seconds=30))}
    job = make_job(status, activeDeadlineSeconds=30)
    first = decide(job, [make_pod("a", RUNNING)])
    assert deleted(first) == ["a"]
    assert conditions(first) == {"FailureTarget": ("True", "DeadlineExceeded")}
    counting = decide(make_job(written(first), activeDeadlineSeconds=30), [make_pod("a", BAD, deleting=True)])
    assert written(counting)["uncountedTerminatedPods"] == {"failed": ["uid-a"]}
    last = decide(make_job(written(counting), activeDeadlineSeconds=30))
    assert conditions(last)["Failed"] == ("True", "DeadlineExceeded")
    assert written(last)["failed"] == 1
    assert announced(last) == ["DeadlineExceeded"]


def test_before_the_deadline_it_looks_again_just_in_time() -> None:
    status = {"startTime": format_time(NOW - timedelta(seconds=12))}
    assert decide(make_job(status, activeDeadlineSeconds=30), [make_pod("a", RUNNING)]).look_again == 18


POLICY = {
    "rules": [
        {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [64]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [143]}},
        {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [0]}},
    ]
}


@pytest.mark.parametrize(
    ("outcome", "pod"),
    [
        pytest.param("fails", make_pod("a", BAD, code=64), id="FailJob by exit code"),
        pytest.param("ignored", make_pod("a", BAD, code=143), id="Ignore by exit code"),
        pytest.param(
            "ignored", make_pod("a", BAD, conditions=[condition("DisruptionTarget")]), id="Ignore by condition"
        ),
        pytest.param(
            "counted", make_pod("a", BAD, conditions=[condition("DisruptionTarget", status="False")]), id="False"
        ),
        pytest.param("counted", make_pod("a", BAD, code=1), id="Count"),
    ],
)
def test_the_pod_failure_policy_decides_what_a_failure_means(outcome: str, pod: Obj) -> None:
    plan = decide(make_job(podFailurePolicy=POLICY), [pod])
    status = written(plan)
    failed = status["uncountedTerminatedPods"].get("failed", [])
    found = "fails" if "FailureTarget" in str(status.get("conditions")) else "counted" if failed else "ignored"
    assert found == outcome
    assert released(plan) == ["a"]


def test_the_message_of_fail_job_names_container_pod_and_rule() -> None:
    plan = decide(make_job(podFailurePolicy=POLICY), [make_pod("a", BAD, code=64)])
    (entry,) = written(plan)["conditions"]
    assert entry["reason"] == "PodFailurePolicy"
    assert entry["message"] == "Container main for pod team/a failed with exit code 64 matching FailJob rule at index 0"


def test_an_ignored_failure_is_replaced_at_once() -> None:
    pods = [make_pod("a", BAD, code=143, ago=0, tracked=False)]
    assert len(created(decide(make_job(podFailurePolicy=POLICY), pods))) == 1


@pytest.mark.parametrize(
    ("replacements", "spec"),
    [
        pytest.param(1, {}, id="TerminatingOrFailed by default"),
        pytest.param(0, {"podReplacementPolicy": "Failed"}, id="Failed waits for the end"),
        pytest.param(0, {"podFailurePolicy": POLICY}, id="a failure policy waits too"),
    ],
)
def test_a_pod_on_its_way_out_is_replaced_by_policy(replacements: int, spec: Obj) -> None:
    pods = [make_pod("a", RUNNING, deleting=True, tracked=False)]
    assert len(created(decide(make_job(**spec), pods))) == replacements


def test_suspending_deletes_what_runs_without_counting_it() -> None:
    plan = decide(make_job(suspend=True), [make_pod("a", RUNNING)])
    kinds = [type(action).__name__ for action in plan.actions]
    assert kinds == ["WriteStatus", "RemoveFinalizer", "Delete", "Announce"]
    assert conditions(plan) == {"Suspended": ("True", "JobSuspended")}
    assert "startTime" not in written(plan)
    assert "failed" not in written(plan)


def test_resuming_starts_the_clock_anew() -> None:
    status = {"conditions": [condition("Suspended", "JobSuspended", ago=500)]}
    plan = decide(make_job(status, suspend=False))
    assert conditions(plan) == {"Suspended": ("False", "JobResumed")}
    assert written(plan)["startTime"] == format_time(NOW)
    assert len(created(plan)) == 1
    assert announced(plan) == ["Resumed"]


def test_fewer_workers_means_that_the_least_advanced_goes_uncounted() -> None:
    ready = make_pod("a", RUNNING, conditions=[condition("Ready")])
    plan = decide(make_job(parallelism=1, completions=5), [ready, make_pod("b", RUNNING)])
    assert deleted(plan) == ["b"]
    assert released(plan) == ["b"]


def test_success_is_final_only_when_all_is_counted_and_gone() -> None:
    first = decide(make_job(), [make_pod("a", OK)])
    assert conditions(first) == {"SuccessCriteriaMet": ("True", "CompletionsReached")}
    assert released(first) == ["a"]
    last = decide(make_job(written(first)), [make_pod("a", OK, tracked=False)])
    assert conditions(last)["Complete"] == ("True", "CompletionsReached")
    assert written(last)["succeeded"] == 1
    assert written(last)["completionTime"] == format_time(NOW)
    assert announced(last) == ["Completed"]


def test_a_work_queue_is_done_when_one_succeeded_and_none_runs() -> None:
    job = make_job(completions=None, parallelism=2)
    assert "conditions" not in written(decide(job, [make_pod("a", OK), make_pod("b", RUNNING)]))
    plan = decide(job, [make_pod("a", OK), make_pod("b", OK)])
    assert conditions(plan) == {"SuccessCriteriaMet": ("True", "CompletionsReached")}


def test_active_and_ready_pods_are_counted_in_status() -> None:
    pods = [make_pod("a", RUNNING, conditions=[condition("Ready")]), make_pod("b", RUNNING)]
    status = written(decide(make_job(parallelism=3, completions=3), pods))
    assert (status["active"], status["ready"], status["terminating"]) == (3, 1, 0)


@pytest.mark.parametrize(
    ("gone", "look_again", "ago", "ttl"),
    [
        pytest.param(False, None, 100, None, id="no time to live"),
        pytest.param(False, 20, 10, 30, id="not yet"),
        pytest.param(True, None, 30, 30, id="over"),
        pytest.param(True, None, 0, 0, id="at once"),
    ],
)
def test_a_finished_job_goes_after_its_time_to_live(
    gone: bool, look_again: float | None, ago: float, ttl: int | None
) -> None:
    status = {"conditions": [condition("Complete", ago=ago)]}
    plan = decide(make_job(status, ttlSecondsAfterFinished=ttl))
    assert (deleted(plan) == ["train"]) is gone
    assert plan.look_again == look_again


def test_a_job_that_is_deleted_lets_its_pods_go() -> None:
    job = make_job()
    job["metadata"]["deletionTimestamp"] = format_time(NOW)
    plan = decide(job, [make_pod("a", RUNNING), make_pod("b", OK, tracked=False)])
    assert released(plan) == ["a"]
    assert len(plan.actions) == 1


def test_nothing_to_do_means_no_action() -> None:
    pods = [make_pod("a", RUNNING)]
    first = decide(make_job(), pods)
    assert decide(make_job(written(first)), pods).actions == ()
