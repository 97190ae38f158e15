"""A run on several nodes: an Indexed Job, a headless Service under which its pods meet, and who else may reach them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from codetune_api.contracts import TrainConfig
from codetune_api.finetune import FineTune, FineTuneStatus, Progress
from codetune_api.metadata import FINALIZER
from codetune_operator.reconcile.finetune import reconcile
from codetune_operator.reconcile.observed import FineTuneView
from codetune_operator.resources.finetune.training import build_training, pin_dataset, training_job_name
from codetune_operator.resources.models import ModelSource, locate_model
from codetune_operator.runs.report import RunReport
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
BEFORE = "2026-11-23T09:59:00Z"
REVISION = "sha256:" + "a" * 64
SETTINGS = Settings()
RUNNING: Obj = {"running": {"startedAt": BEFORE}}
UNSCHEDULED = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]
CLAIM: Obj = {"metadata": {"name": "codetune-artifacts"}}
AT_WORK = RunReport(stage="Training", progress=Progress(step=30, total_steps=60, updated_at=BEFORE), remaining=720)


def make_finetune(name: str = "mine", **resources: int) -> FineTune:
    metadata = {"name": name, "namespace": "ns", "uid": "u1", "generation": 3, "finalizers": [FINALIZER]}
    spec = {"projectRef": {"name": "code"}, "baseModel": "pvc://models/base", "resources": resources}
    status = {"dataset": {"revision": REVISION, "uri": "pvc://codetune-artifacts/x"}}
    return FineTune.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "FineTune",
            "metadata": metadata,
            "spec": spec,
            "status": status,
        }
    )


NODES = make_finetune(gpus=4, nodes=2)


def job_name(finetune: FineTune) -> str:
    return training_job_name(finetune, pin_dataset(finetune, REVISION))


def build_all(finetune: FineTune) -> dict[str, Obj]:
    """All objects of a run, by kind."""
    model = locate_model(finetune.spec.base_model, SETTINGS)
    assert isinstance(model, ModelSource)
    return {obj["kind"]: obj for obj in build_training(finetune, pin_dataset(finetune, REVISION), model, SETTINGS)}


def build(finetune: FineTune, kind: str) -> Obj:
    return build_all(finetune)[kind]


def make_job(finetune: FineTune, *, condition: str = "", **status: Any) -> Obj:
    if condition:
        status["conditions"] = [{"type": condition, "status": "True", "lastTransitionTime": BEFORE}]
    job = build(finetune, "Job")
    return {**job, "metadata": {**job["metadata"], "uid": "j1"}, "status": status}


def pod_of_node(index: int, state: Obj | None = None, *, name: str = "", phase: str = "Running", **status: Any) -> Obj:
    labels = {"job-name": job_name(NODES), "batch.kubernetes.io/job-completion-index": str(index)}
    if state is not None:
        status["containerStatuses"] = [{"name": "train", "image": "t", "state": state, "restartCount": 0}]
    return {
        "metadata": {"name": name or f"p{index}", "labels": labels, "creationTimestamp": BEFORE},
        "spec": {"containers": [{"name": "train", "resources": {"requests": {"nvidia.com/gpu": "4"}}}]},
        "status": {"phase": phase, **status},
    }


def observe(*pods: Obj, job: Obj | None = None) -> FineTuneStatus:
    status = reconcile(view_of(NODES, job or make_job(NODES), *pods), SETTINGS, NOW).status
    assert isinstance(status, FineTuneStatus)
    return status


def view_of(finetune: FineTune, job: Obj, *pods: Obj) -> FineTuneView:
    return FineTuneView(finetune, AT_WORK, claim=CLAIM, pods=pods, jobs=(job,))


def ended(code: int, message: str = "") -> Obj:
    return {"terminated": {"exitCode": code, "message": message, "reason": "Error"}}


def test_each_node_is_a_pod_with_an_index_that_all_run_at_once() -> None:
    spec = build(NODES, "Job")["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["backoffLimit"] == 2 * NODES.spec.retries
    (train,) = spec["template"]["spec"]["containers"]
    assert train["resources"]["limits"]["nvidia.com/gpu"] == "4"
    config = TrainConfig.model_validate_json(build(NODES, "ConfigMap")["data"]["config.json"])
    assert (config.gpus, config.nodes) == (4, 2)


def test_the_pods_meet_at_the_first_one_by_a_name_that_it_keeps() -> None:
    job, service = build(NODES, "Job"), build(NODES, "Service")
    (train,) = job["spec"]["template"]["spec"]["containers"]
    leader = next(entry["value"] for entry in train["env"] if entry["name"] == "CODETUNE_LEADER")
    host, _, port = leader.rpartition(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}.ns.svc"
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert [entry["port"] for entry in service["spec"]["ports"]] == [int(port)]


def test_only_the_runs_own_pods_reach_each_other() -> None:
    policy, job = build(NODES, "NetworkPolicy")["spec"], build(NODES, "Job")
    assert policy["podSelector"]["matchLabels"] == job["spec"]["template"]["metadata"]["labels"]
    assert policy["ingress"] == [{"from": [{"podSelector": policy["podSelector"]}]}]
    assert policy["policyTypes"] == ["Ingress"]


def test_a_run_on_one_node_has_neither() -> None:
    built = build_all(make_finetune(gpus=8))
    assert built.keys() == {"ConfigMap", "Job"}
    spec = built["Job"]["spec"]
    assert "completionMode" not in spec
    assert "subdomain" not in spec["template"]["spec"]


def test_host_names_of_the_longest_run_fit_into_a_label() -> None:
    longest = make_finetune("n" * 48, nodes=64)
    assert len(f"{job_name(longest)}-63") <= 63
    assert len(build(longest, "Service")["metadata"]["name"]) <= 63


def test_a_run_that_gets_more_nodes_leaves_its_former_job_first() -> None:
    long = make_finetune("n" * 48, nodes=2)
    former = make_finetune("n" * 48)
    plan = reconcile(view_of(long, make_job(former)), SETTINGS, NOW)
    assert [ref.name for ref in plan.delete] == [job_name(former)] * 2
    assert job_name(long) != job_name(former)


LIVES = [
    pytest.param(("Starting", "NoPod"), [], id="no pod yet"),
    pytest.param(("Starting", "NoPod"), [pod_of_node(0, RUNNING)], id="one pod is missing"),
    pytest.param(("Starting", "PodStarting"), [pod_of_node(0, RUNNING), pod_of_node(1)], id="one is starting"),
    pytest.param(
        ("Queued", "Unschedulable"),
        [pod_of_node(0, RUNNING), pod_of_node(1, phase="Pending", conditions=UNSCHEDULED)],
        id="one has no node",
    ),
    pytest.param(("Running", "Training"), [pod_of_node(0, RUNNING), pod_of_node(1, RUNNING)], id="all are at work"),
    pytest.param(
        ("Running", "Training"), [pod_of_node(0, RUNNING), pod_of_node(1, ended(0), phase="Succeeded")], id="one leaves"
    ),
    pytest.param(
        ("Starting", "Restarting"),
        [pod_of_node(0, ended(75), phase="Failed"), pod_of_node(1, ended(137), phase="Failed")],
        id="one was killed and the other noticed",
    ),
    pytest.param(
        ("Running", "Training"),
        [pod_of_node(0, ended(75), phase="Failed", name="a"), pod_of_node(0, RUNNING), pod_of_node(1, RUNNING)],
        id="another attempt",
    ),
    pytest.param(
        ("Running", "Finishing"),
        [pod_of_node(0, ended(0), phase="Succeeded"), pod_of_node(1, ended(0), phase="Succeeded")],
        id="all are done",
    ),
]


@pytest.mark.parametrize(("expected", "pods"), LIVES)
def test_the_phase_follows_from_the_pods_of_all_nodes(expected: tuple[str, str], pods: list[Obj]) -> None:
    status = observe(*pods)
    ready = next(entry for entry in status.conditions if entry.type == "Ready")
    assert (status.phase, ready.reason) == expected


def test_only_the_first_pods_log_is_read() -> None:
    plan = reconcile(view_of(NODES, make_job(NODES), pod_of_node(0, RUNNING), pod_of_node(1, RUNNING)), SETTINGS, NOW)
    assert [follow.pod for follow in plan.follow] == ["p0"]


def test_a_failed_run_tells_of_the_pod_that_failed_and_not_of_one_that_lost_it() -> None:
    words = '{"reason": "DiskFull", "message": "A volume is full.", "hint": "h"}'
    pods = pod_of_node(0, ended(1, words), phase="Failed"), pod_of_node(1, ended(75, "gone"), phase="Failed")
    failure = observe(*pods, job=make_job(NODES, condition="Failed", failed=1)).failure
    assert failure is not None
    assert failure.reason == "DiskFull"


@pytest.mark.parametrize(("failed", "restarts"), [(0, 0), (1, 1), (2, 1), (3, 2)])
def test_pods_that_failed_together_are_one_restart(failed: int, restarts: int) -> None:
    status = observe(pod_of_node(0, RUNNING), pod_of_node(1, RUNNING), job=make_job(NODES, failed=failed))
    assert status.restarts == restarts
