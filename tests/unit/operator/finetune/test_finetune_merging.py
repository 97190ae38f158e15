"""A merged model is made when an annotation asks for it: which Job there is, what status says, and what ends it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import kubernetes_validate
import pytest
from codetune_api.contracts import FetchConfig, MergeConfig
from codetune_api.finetune import FineTune
from codetune_operator.reconcile.finetune import reconcile
from codetune_operator.reconcile.observed import FineTuneView
from codetune_operator.reconcile.plan import Plan
from codetune_operator.resources.finetune.merging import merge_job_name
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
CLAIM: Obj = {"metadata": {"name": "codetune-artifacts"}}
RUN = "ns/finetunes/tuned/u1"


def entry(step: int) -> Obj:
    name = f"step-{step:06d}"
    uri = f"pvc://codetune-artifacts/{RUN}/checkpoints/{name}"
    return {"name": name, "step": step, "uri": uri, "digest": f"sha256:{step:064d}"}


DONE: Obj = {
    "phase": "Succeeded",
    "checkpoints": [entry(40), entry(60)],
    "bestCheckpoint": "step-000040",
    "latestCheckpoint": "step-000060",
}


def make_finetune(request: str | None = "best", status: Obj | None = None, **spec: Any) -> FineTune:
    metadata: Obj = {"name": "tuned", "namespace": "ns", "uid": "u1", "finalizers": ["codetune.dev/artifacts"]}
    if request is not None:
        metadata["annotations"] = {"codetune.dev/merge": request}
    spec = {"projectRef": {"name": "code"}, "baseModel": "pvc://models/base", **spec}
    kind = {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune"}
    return FineTune.from_wire({**kind, "metadata": metadata, "spec": spec, "status": {**DONE, **(status or {})}})


def make_job(finetune: FineTune, request: str, condition: str = "") -> Obj:
    ended = [{"type": condition, "status": "True", "lastTransitionTime": "2026-11-23T09:00:00Z"}] if condition else []
    name = merge_job_name(finetune, request)
    return {"metadata": {"name": name, "uid": "j1"}, "spec": {}, "status": {"conditions": ended}}


def make_pod(job: Obj, phase: str = "Running", **state: Any) -> Obj:
    container = {"name": "merge", "state": state, "restartCount": 0}
    metadata = {"name": "p", "labels": {"job-name": job["metadata"]["name"]}}
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase, "containerStatuses": [container]}}


def plan_for(finetune: FineTune, **more: Any) -> Plan:
    return reconcile(replace(FineTuneView(finetune, claim=CLAIM), **more), Settings(), NOW)


def merged(plan: Plan) -> Obj | None:
    assert plan.status is not None
    found: Obj | None = plan.status.to_wire().get("merged")
    return found


def test_nothing_is_merged_unless_somebody_asks() -> None:
    plan = plan_for(make_finetune(None))
    assert (plan.apply, merged(plan)) == ((), None)


@pytest.mark.parametrize(
    ("step", "request_"),
    [
        pytest.param(40, "best", id="best"),
        pytest.param(60, "latest", id="latest"),
        pytest.param(40, "step-40", id="a step"),
        pytest.param(60, "step-000060@20261123T100000Z", id="a step, once more"),
    ],
)
def test_a_request_makes_a_job_for_its_checkpoint(step: int, request_: str) -> None:
    plan = plan_for(make_finetune(request_))
    config_map, job = plan.apply
    config = MergeConfig.model_validate_json(config_map["data"]["config.json"])
    assert config.adapter == f"{RUN}/checkpoints/step-{step:06d}"
    assert config.output == f"{RUN}/merged/step-{step:06d}"
    assert config.digest == entry(step)["digest"]
    assert merged(plan) == {
        "request": request_,
        "phase": "Pending",
        "checkpoint": f"step-{step:06d}",
        "digest": entry(step)["digest"],
        "uri": "",
        "message": "The Job that merges is being created.",
    }
    assert job["metadata"]["name"] == config_map["metadata"]["name"]


def test_the_job_is_restricted_needs_no_gpu_and_runs_where_training_runs() -> None:
    scheduling = {"nodeSelector": {"disk": "fast"}}
    finetune = make_finetune(resources={"gpus": 2, "cpu": "4", "memory": "24Gi"}, scheduling=scheduling)
    config_map, job = plan_for(finetune).apply
    for built in (config_map, job):
        kubernetes_validate.validate(built, "1.37", strict=True)
        assert built["metadata"]["ownerReferences"][0]["uid"] == "u1"
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "codetune_trainer", "merge"]
    assert container["resources"] == {"requests": {"cpu": "4", "memory": "24Gi"}, "limits": {"memory": "24Gi"}}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert (pod["automountServiceAccountToken"], pod["nodeSelector"]) == (False, {"disk": "fast"})


def test_a_hub_model_is_the_one_that_the_run_was_made_on() -> None:
    config_map, job = plan_for(make_finetune(baseModel="hf://org/name", modelSecretRef={"name": "hub"})).apply
    fetch = FetchConfig.model_validate_json(config_map["data"]["fetch.json"])
    assert (fetch.repository, fetch.pin) == ("org/name", f"{RUN}/base-model.json")
    spec = job["spec"]["template"]["spec"]
    assert [container["name"] for container in spec["initContainers"]] == ["fetch"]
    assert "HF_TOKEN" not in {variable["name"] for variable in spec["containers"][0]["env"]}


WORDS = '{"reason": "OutOfMemory", "message": "The pod ran out of memory.", "hint": "Raise spec.resources.memory."}'


@pytest.mark.parametrize(
    ("phase", "said", "condition", "pod"),
    [
        pytest.param("Merging", "merges step-000040", "", {"running": {}}, id="at work"),
        pytest.param("Ready", "is merged into", "Complete", {"terminated": {"exitCode": 0}}, id="done"),
        pytest.param(
            "Failed",
            "Raise spec.resources.memory",
            "Failed",
            {"terminated": {"exitCode": 1, "message": WORDS}},
            id="failed",
        ),
        pytest.param("Failed", "kubectl describe job", "Failed", None, id="failed without a word"),
        pytest.param(
            "Merging", "ImagePull", "", {"waiting": {"reason": "ErrImagePull", "message": "none"}}, id="in trouble"
        ),
    ],
)
def test_the_job_decides_what_status_says(phase: str, said: str, condition: str, pod: Obj | None) -> None:
    finetune = make_finetune()
    job = make_job(finetune, "best", condition)
    pods = (make_pod(job, **pod),) if pod is not None else ()
    plan = plan_for(finetune, jobs=(job,), pods=pods)
    told = merged(plan)
    assert told is not None
    assert (told["phase"], told["checkpoint"]) == (phase, "step-000040")
    assert said in told["message"]
    assert told["uri"] == (f"pvc://codetune-artifacts/{RUN}/merged/step-000040" if phase == "Ready" else "")
    assert plan.apply == ()


@pytest.mark.parametrize("phase", ["Ready", "Failed"])
def test_a_request_is_answered_once(phase: str) -> None:
    before = {"request": "best", "phase": phase, "checkpoint": "step-000040", "message": "m"}
    plan = plan_for(make_finetune(status={"merged": before}))
    assert plan.apply == ()
    assert merged(plan) == {**before, "uri": ""}


def test_another_request_is_carried_out() -> None:
    before = {"request": "best", "phase": "Failed", "checkpoint": "step-000040", "message": "m"}
    plan = plan_for(make_finetune("best@again", status={"merged": before}))
    assert [child["kind"] for child in plan.apply] == ["ConfigMap", "Job"]


def test_the_best_checkpoint_may_move_while_a_request_is_carried_out() -> None:
    before = {"request": "best", "phase": "Merging", "checkpoint": "step-000040", "message": "m"}
    finetune = make_finetune(status={"merged": before, "bestCheckpoint": "step-000060"})
    told = merged(plan_for(finetune, jobs=(make_job(finetune, "best", "Complete"),)))
    assert told is not None
    assert (told["phase"], told["checkpoint"]) == ("Ready", "step-000040")


def test_two_requests_never_run_at_once() -> None:
    finetune = make_finetune("latest")
    former = make_job(finetune, "best")
    plan = plan_for(finetune, jobs=(former,))
    assert plan.apply == ()
    assert [child.name for child in plan.delete] == [former["metadata"]["name"]] * 2
    ending = plan_for(finetune, pods=(make_pod(former, running={}),))
    assert (ending.apply, ending.delete) == ((), ())
    assert [child["kind"] for child in plan_for(finetune).apply] == ["ConfigMap", "Job"]


@pytest.mark.parametrize(
    ("said", "request_"),
    [
        pytest.param("must name best, latest or step-N", "newest", id="no such kind"),
        pytest.param("must name best, latest or step-N", "../step-1", id="a path"),
        pytest.param("there are: step-000040, step-000060", "step-50", id="not kept"),
    ],
)
def test_a_request_that_can_not_be_met_says_why(said: str, request_: str) -> None:
    plan = plan_for(make_finetune(request_))
    told = merged(plan)
    assert told is not None
    assert (told["phase"], plan.apply) == ("Failed", ())
    assert said in told["message"]


def test_a_base_model_out_of_reach_says_why() -> None:
    told = merged(plan_for(make_finetune(baseModel="file:///base")))
    assert told is not None
    assert (told["phase"], "fileRoot" in told["message"]) == ("Failed", True)


def test_the_run_itself_is_left_alone() -> None:
    plan = plan_for(make_finetune())
    assert plan.status is not None
    assert plan.status.to_wire()["phase"] == "Succeeded"
    assert {child["metadata"]["name"] for child in plan.apply} == {merge_job_name(make_finetune(), "best")}


def test_names_of_jobs_fit_into_a_label() -> None:
    finetune = make_finetune()
    longest = finetune.model_copy(update={"metadata": finetune.metadata.model_copy(update={"name": "n" * 48})})
    assert len(merge_job_name(longest, "best")) <= 63
