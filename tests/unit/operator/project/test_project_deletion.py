"""Deletion of what has artifacts in the store: who has to stop first, what is purged, and when the finalizer goes."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from codetune_api.contracts import PurgeConfig
from codetune_api.finetune import FineTune
from codetune_api.project import Project, ProjectStatus
from codetune_operator.reconcile.deletion import reconcile_deletion
from codetune_operator.reconcile.observed import FineTuneView, ProjectView
from codetune_operator.resources.purge import build_purge, purge_job_name
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
SETTINGS = Settings()
CLAIM: Obj = {"metadata": {"name": "codetune-artifacts"}}
META: Obj = {
    "name": "mine",
    "namespace": "ns",
    "uid": "u1",
    "deletionTimestamp": "2026-11-23T09:59:00Z",
    "finalizers": ["codetune.dev/artifacts"],
}
PROJECT = Project.from_wire(
    {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "Project",
        "metadata": META,
        "spec": {"sources": [{"name": "a", "git": {"url": "https://example.org/a.git"}}]},
    }
)
FINETUNE_SPEC: Obj = {"projectRef": {"name": "code"}, "baseModel": "hf://org/model"}


def make_finetune(**spec: Any) -> FineTune:
    return FineTune.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "FineTune",
            "metadata": META,
            "spec": {**FINETUNE_SPEC, **spec},
        }
    )


def make_job(name: str, condition: str = "", **metadata: Any) -> Obj:
    conditions = [{"type": condition, "status": "True"}] if condition else []
    return {"metadata": {"name": name, "uid": f"uid-{name}", **metadata}, "status": {"conditions": conditions}}


def make_pod(job: str, phase: str) -> Obj:
    return {"metadata": {"name": f"{job}-x", "labels": {"job-name": job}}, "status": {"phase": phase}}


PURGE = purge_job_name(PROJECT)
VIEW = ProjectView(project=PROJECT, claim=CLAIM)


def suspended(created: str, *, again: str = "") -> Obj:
    """The purge, suspended since it was made, or since it was suspended again."""
    job = make_job(PURGE, creationTimestamp=f"2026-11-23T{created}Z")
    told = {"type": "Suspended", "status": "True", "lastTransitionTime": f"2026-11-23T{again}Z"}
    return {**job, "spec": {"suspend": True}, "status": {"conditions": [told] if again else []}}


SCAN = make_job("mine-scan-1")

PLANS = [
    pytest.param(("Keep", [], []), replace(VIEW, jobs=(SCAN,)), ["Job/mine-scan-1"], id="its scan is stopped first"),
    pytest.param(
        ("Keep", [], []),
        replace(VIEW, jobs=(make_job("mine-scan-1", deletionTimestamp="t"),)),
        [],
        id="waits for the Job to go",
    ),
    pytest.param(
        ("Keep", [], []),
        replace(VIEW, pods=(make_pod("mine-scan-1", "Running"),)),
        [],
        id="waits for the pod that still writes",
    ),
    pytest.param(
        ("Keep", ["ConfigMap", "Job"], []),
        replace(VIEW, pods=(make_pod("mine-scan-1", "Succeeded"),)),
        [],
        id="then purges",
    ),
    pytest.param(("Keep", [], []), replace(VIEW, jobs=(make_job(PURGE),)), [], id="waits for the purge"),
    pytest.param(
        ("Remove", [], []),
        replace(VIEW, jobs=(make_job(PURGE, "Complete"),)),
        [f"ConfigMap/{PURGE}", f"Job/{PURGE}"],
        id="lets go after the purge",
    ),
    pytest.param(
        ("Remove", [], ["PurgeFailed"]),
        replace(VIEW, jobs=(make_job(PURGE, "Failed"),)),
        [f"ConfigMap/{PURGE}"],
        id="lets go with a warning when the purge failed",
    ),
    pytest.param(("Keep", [], []), replace(VIEW, jobs=(suspended("09:50:01"),)), [], id="waits for a suspended purge"),
    pytest.param(
        ("Remove", [], ["PurgeFailed"]),
        replace(VIEW, jobs=(suspended("09:50:00"),)),
        [f"ConfigMap/{PURGE}", f"Job/{PURGE}"],
        id="lets go when the purge stays suspended",
    ),
    pytest.param(
        ("Keep", [], []),
        replace(VIEW, jobs=(suspended("08:00:00", again="09:55:00"),)),
        [],
        id="counts from the last suspension",
    ),
    pytest.param(("Remove", [], []), replace(VIEW, claim=None), [], id="lets go without a store"),
    pytest.param(
        ("Remove", [], []), replace(VIEW, namespace_terminating=True), [], id="lets go when the namespace goes away"
    ),
    pytest.param(
        ("Keep", ["ConfigMap", "Job"], []),
        FineTuneView(finetune=make_finetune(), claim=CLAIM),
        [],
        id="a run is purged",
    ),
    pytest.param(
        ("Remove", [], []),
        FineTuneView(finetune=make_finetune(deletionPolicy="Retain"), claim=CLAIM),
        [],
        id="a run that is to be retained is not",
    ),
]


@pytest.mark.parametrize(("expected", "observed", "deleted"), PLANS)
def test_a_deletion_goes_step_by_step(
    expected: tuple[str, list[str], list[str]], observed: ProjectView | FineTuneView, deleted: list[str]
) -> None:
    plan = reconcile_deletion(observed, SETTINGS, NOW)

    applied = [obj["kind"] for obj in plan.apply]
    assert (plan.finalizer, applied, [event.reason for event in plan.events]) == expected
    assert [f"{child.kind}/{child.name}" for child in plan.delete] == deleted


def test_a_suspended_purge_is_told_and_looked_at_when_its_time_is_over() -> None:
    waiting = reconcile_deletion(replace(VIEW, jobs=(suspended("09:55:00"),)), SETTINGS, NOW)
    assert waiting.requeue_after == 300
    assert isinstance(waiting.status, ProjectStatus)
    assert "whoever did so, as Kueue does" in waiting.status.conditions[0].message

    over = reconcile_deletion(replace(VIEW, jobs=(suspended("09:00:00"),)), SETTINGS, NOW)
    assert f"{PURGE} did not remove ns/projects/mine" in over.events[0].message
    assert "remove that folder by hand" in over.events[0].message


def test_nothing_is_done_for_a_resource_that_has_let_go() -> None:
    free = PROJECT.model_copy(update={"metadata": PROJECT.metadata.model_copy(update={"finalizers": []})})

    plan = reconcile_deletion(replace(VIEW, project=free), SETTINGS, NOW)

    assert (plan.apply, plan.delete, plan.status, plan.finalizer) == ((), (), None, "Keep")


PURGES = [
    pytest.param(["ns/projects/mine"], PROJECT, id="all of a project"),
    pytest.param(["ns/finetunes/mine/u1"], make_finetune(), id="this very run"),
]


@pytest.mark.parametrize(("expected", "resource"), PURGES)
def test_a_purge_removes_what_is_its_own(expected: list[str], resource: Project | FineTune) -> None:
    config, job = build_purge(resource, SETTINGS)

    assert PurgeConfig.model_validate_json(config["data"]["config.json"]).paths == expected
    assert "ownerReferences" not in job["metadata"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 300
    assert job["spec"]["activeDeadlineSeconds"] == 600
    assert job["spec"]["backoffLimit"] == 3
    assert len(job["metadata"]["name"]) <= 63


def test_another_object_of_the_same_name_gets_another_purge() -> None:
    other = PROJECT.model_copy(update={"metadata": PROJECT.metadata.model_copy(update={"uid": "u2"})})

    assert purge_job_name(PROJECT) != purge_job_name(other)
