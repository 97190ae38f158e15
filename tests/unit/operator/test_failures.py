"""Why pods fail: realistic pods, as a kubelet writes them, and the one failure that a person is told.

Deliberately left out: what only Events say (a volume that cannot be mounted), which pods do not carry.
"""

from decimal import Decimal
from typing import Any

import pytest
from codetune_operator.reconcile.failures import classify
from codetune_operator.reconcile.quantities import parse_quantity, say_amount

Obj = dict[str, Any]


def make_pod(
    name: str = "run-abcde",
    *,
    phase: str = "Pending",
    created: str = "2026-11-23T10:00:00Z",
    state: Obj | None = None,
    last: Obj | None = None,
    init: Obj | None = None,
    restarts: int = 0,
    ready: bool = False,
    conditions: list[Obj] | None = None,
    reason: str = "",
    message: str = "",
    requests: Obj | None = None,
    deleted: bool = False,
    node: str = "",
    container_name: str = "train",
) -> Obj:
    container = {"name": container_name, "image": "registry.example/codetune-trainer:1"}
    status: Obj = {"phase": phase, "conditions": conditions or []}
    if init is not None:
        status["initContainerStatuses"] = [
            {"name": "fetch", "image": container["image"], "restartCount": 0, "ready": False, "state": init}
        ]
    if state is not None:
        status["containerStatuses"] = [
            {**container, "restartCount": restarts, "ready": ready, "state": state, "lastState": last or {}}
        ]
    if reason:
        status |= {"reason": reason, "message": message}
    metadata = {"name": name, "creationTimestamp": created}
    if deleted:
        metadata["deletionTimestamp"] = created
    resources = {"requests": requests or {"cpu": "2"}, "limits": {"memory": "6Gi"}}
    spec = {"containers": [{**container, "resources": resources}], "nodeName": node}
    return {"metadata": metadata, "spec": spec, "status": status}


def waiting(reason: str, message: str = "") -> Obj:
    return {"waiting": {"reason": reason, "message": message}}


def terminated(code: int, *, reason: str = "Error", message: str = "", signal: int = 0) -> Obj:
    ended: Obj = {"exitCode": code, "reason": reason, "message": message, "containerID": "containerd://1"}
    return {"terminated": {**ended, **({"signal": signal} if signal else {})}}


def make_node(name: str, *, ready: str = "True", cordoned: bool = False, **allocatable: str) -> Obj:
    amounts = {key.replace("__", "/").replace("_", "."): value for key, value in allocatable.items()}
    return {
        "metadata": {"name": name},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {"allocatable": amounts, "conditions": [{"type": "Ready", "status": ready}]},
    }


def unscheduled(message: str, reason: str = "Unschedulable") -> list[Obj]:
    return [{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}]


PRE_BIND = 'running PreBind plugin "VolumeBinding": binding volumes:'
NOT_FOUND = "The container could not be located when the pod was terminated"
TOLD = '{"reason":"DivergedLoss","message":"The loss is not a number at step 7.","hint":"Lower learningRate."}'
TOLD_MEMORY = '{"reason":"OutOfMemory","message":"CUDA out of memory at step 1.","hint":"Lower lora.rank."}'
JOB_DEADLINE = {
    "status": {
        "conditions": [
            {
                "type": "Failed",
                "status": "True",
                "reason": "DeadlineExceeded",
                "message": "Job was active longer than specified deadline",
            }
        ]
    }
}
JOB_BACKOFF = {
    "status": {
        "conditions": [
            {
                "type": "Failed",
                "status": "True",
                "reason": "BackoffLimitExceeded",
                "message": "Job has reached the specified backoff limit",
            }
        ]
    }
}
QUOTA = {
    "status": {
        "conditions": [
            {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable"},
            {
                "type": "ReplicaFailure",
                "status": "True",
                "reason": "FailedCreate",
                "message": 'pods "coder-1" is forbidden: exceeded quota: gpus',
            },
        ]
    }
}
DISRUPTED = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempting"}]

CASES = [
    pytest.param(None, [], None, id="no pods, no failure"),
    pytest.param(None, [make_pod(phase="Running", state={"running": {}}, ready=True)], None, id="running"),
    pytest.param(None, [make_pod(state=waiting("ContainerCreating"))], None, id="still being created"),
    pytest.param(None, [make_pod(phase="Succeeded", state=terminated(0, reason="Completed"))], None, id="done"),
    pytest.param(None, [make_pod(phase="Failed", state=terminated(143))], None, id="stopped on SIGTERM"),
    pytest.param(
        None, [make_pod(state=waiting("ErrImagePull", "not found"), deleted=True)], None, id="a pod being deleted"
    ),
    pytest.param(
        None,
        [make_pod(phase="Running", state={"running": {}}, last=terminated(1), restarts=1, ready=True)],
        None,
        id="came back after a restart",
    ),
    pytest.param(
        ("OutOfMemory", "limit of 6Gi", "spec.resources.memory"),
        [make_pod(phase="Failed", state=terminated(137, reason="OOMKilled"))],
        None,
        id="killed by the kernel for memory",
    ),
    pytest.param(
        ("OutOfMemory", "limit of 6Gi", "sequenceLength or lora.rank, or training.gradientCheckpointing: On;"),
        [make_pod(phase="Failed", state=terminated(137, reason="OOMKilled"))],
        None,
        id="killed for memory, which the size of a batch does not change",
    ),
    pytest.param(
        ("OutOfMemory", "CUDA out of memory", "lora.rank"),
        [make_pod(phase="Failed", state=terminated(1, message=TOLD_MEMORY))],
        None,
        id="out of GPU memory, told by the trainer",
    ),
    pytest.param(
        ("OutOfMemory", "train", "memory"),
        [
            make_pod(
                phase="Running",
                state=waiting("CrashLoopBackOff", "back-off 20s"),
                last=terminated(137, reason="OOMKilled"),
                restarts=3,
            )
        ],
        None,
        id="memory kill between restarts wins over crash loop",
    ),
    pytest.param(
        ("CrashLoop", "exit code 0, 3 restarts so far. Its last words: RuntimeError: Worker failed", "--previous"),
        [
            make_pod(
                phase="Running",
                state=waiting("CrashLoopBackOff", "back-off 20s"),
                last=terminated(0, reason="Completed", message="RuntimeError: Worker failed"),
                restarts=3,
                container_name="server",
            )
        ],
        None,
        id="a server whose engine died, after which vLLM ends in good order",
    ),
    pytest.param(
        None,
        [make_pod(state=terminated(0, reason="Completed"), container_name="server")],
        None,
        id="a server that was asked to end",
    ),
    pytest.param(
        ("ImagePull", "registry.example/codetune-trainer:1", "images"),
        [make_pod(state=waiting("ImagePullBackOff", 'Back-off pulling image "registry.example/codetune-trainer:1"'))],
        None,
        id="image cannot be pulled",
    ),
    pytest.param(
        ("ImagePull", "InvalidImageName", "Check spec.image and spec.imagePullSecrets, where the resource has them"),
        [make_pod(state=waiting("InvalidImageName", "couldn't parse image name"))],
        None,
        id="image name is no image name",
    ),
    pytest.param(
        ("StartError", 'secret "hub-token" not found', "Secret"),
        [make_pod(init=waiting("CreateContainerConfigError", 'secret "hub-token" not found'))],
        None,
        id="secret of the init container is missing",
    ),
    pytest.param(
        ("StartError", "no such file", "kubectl describe"),
        [make_pod(phase="Failed", state=terminated(128, reason="StartError", message="exec: no such file"))],
        None,
        id="container runtime cannot start it",
    ),
    pytest.param(
        ("DivergedLoss", "step 7", "learningRate"),
        [make_pod(phase="Failed", state=terminated(1, message=TOLD))],
        None,
        id="the trainer's own reason wins over crash",
    ),
    pytest.param(
        ("CrashLoop", "boom", "--previous"),
        [make_pod(state=waiting("CrashLoopBackOff"), last=terminated(1, message="Traceback\n  boom"), restarts=4)],
        None,
        id="crash loop tells the last words",
    ),
    pytest.param(
        ("CrashLoop", "signal 9", "memory"),
        [make_pod(phase="Failed", state=terminated(137))],
        None,
        id="killed from outside",
    ),
    pytest.param(
        ("Evicted", "The node n1 lost container 'train': The container could not be located", "started anew"),
        [
            make_pod(
                phase="Failed", node="n1", state=terminated(137, reason="ContainerStatusUnknown", message=NOT_FOUND)
            )
        ],
        None,
        id="lost by its kubelet, which says 137 of each such container",
    ),
    pytest.param(
        ("CrashLoop", "exit code 3", "kubectl logs run-abcde -c train"),
        [make_pod(phase="Failed", state=terminated(3, message='{"reason":"NotOurs","message":"x"}'))],
        None,
        id="a foreign termination message is only quoted",
    ),
    pytest.param(
        ("Evicted", "low on resource: memory", "spec.resources"),
        [
            make_pod(
                phase="Failed",
                reason="Evicted",
                message="The node was low on resource: memory.",
                state=terminated(137),
            )
        ],
        None,
        id="evicted wins over its exit code",
    ),
    pytest.param(
        ("Evicted", "PreemptionByScheduler", "priorityClassName"),
        [make_pod(phase="Failed", conditions=DISRUPTED, state=terminated(143))],
        None,
        id="preempted",
    ),
    pytest.param(
        ("StartError", "OutOfnvidia.com/gpu", "again by itself"),
        [make_pod(phase="Failed", reason="OutOfnvidia.com/gpu", message="Node didn't have enough resource")],
        None,
        id="the node refused it on arrival",
    ),
    pytest.param(
        ("Unschedulable", "claim 'data' does not exist", "Create the PersistentVolumeClaim data"),
        [make_pod(conditions=unscheduled('persistentvolumeclaim "data" not found'))],
        None,
        id="claim does not exist",
    ),
    pytest.param(
        ("Unschedulable", "waits for storage: running PreBind plugin", "storage class"),
        [make_pod(conditions=unscheduled(f"{PRE_BIND} context deadline exceeded", reason="SchedulerError"))],
        None,
        id="claim not bound by its first pod",
    ),
    pytest.param(
        ("Unschedulable", "binding volumes: timed out waiting for the condition", "storage class"),
        [make_pod(conditions=unscheduled(f"{PRE_BIND} timed out waiting for the condition", reason="SchedulerError"))],
        None,
        id="claim not bound by its first pod, up to 1.26",
    ),
    pytest.param(
        ("Unschedulable", "waits for storage", "storage class"),
        [make_pod(conditions=unscheduled("pod has unbound immediate PersistentVolumeClaims. preemption: none"))],
        None,
        id="claim is not bound",
    ),
    pytest.param(
        None,
        [make_pod(conditions=unscheduled("gated", "SchedulingGated"))],
        None,
        id="a scheduling gate is no failure",
    ),
    pytest.param(("DeadlineExceeded", "active longer", "activeDeadlineSeconds"), [], JOB_DEADLINE, id="deadline"),
    pytest.param(("CrashLoop", "backoff limit", "spec.retries"), [], JOB_BACKOFF, id="retries used up, pods gone"),
    pytest.param(("StartError", "exceeded quota: gpus", "quota"), [], QUOTA, id="quota"),
]


@pytest.mark.parametrize(("expected", "pods", "owner"), CASES)
def test_the_first_match_in_the_fixed_order_is_told(
    expected: tuple[str, str, str] | None, pods: list[Obj], owner: Obj | None
) -> None:
    failure = classify(pods, owner=owner)
    if expected is None:
        assert failure is None
    else:
        reason, message, hint = expected
        assert failure is not None
        assert failure.reason == reason
        assert message in failure.message
        assert hint in failure.hint


GPUS = {"nvidia.com/gpu": "64", "cpu": "500m", "memory": "16Gi"}
NODE_CASES = [
    pytest.param(
        [
            "64 nvidia.com/gpu, 0.5 CPU, 16Gi memory",
            "8 nvidia.com/gpu at most on one node (12 nvidia.com/gpu together)",
        ],
        "at most 8 nvidia.com/gpu",
        [
            make_node("a", nvidia_com__gpu="8", cpu="64", memory="512Gi"),
            make_node("b", nvidia_com__gpu="4", cpu="64", memory="256Gi"),
            make_node("c", ready="False", nvidia_com__gpu="64", cpu="64", memory="256Gi"),
            make_node("d", cordoned=True, nvidia_com__gpu="64", cpu="64", memory="256Gi"),
        ],
        id="two nodes with fewer, two that do not count",
    ),
    pytest.param(
        ["the only ready node has 0 nvidia.com/gpu, 4 CPU, 8Gi memory"],
        "set spec.resources.gpus to 0",
        [make_node("laptop", cpu="4", memory="8Gi")],
        id="one node without",
    ),
    pytest.param(
        ["64 nvidia.com/gpu"],
        "Each amount fits on some node",
        [make_node("big", nvidia_com__gpu="64", cpu="64", memory="512Gi")],
        id="busy",
    ),
    pytest.param(
        ["every ready node is cordoned: a, b."],
        "kubectl uncordon",
        [
            make_node("a", cordoned=True, cpu="64"),
            make_node("b", cordoned=True, cpu="64"),
            make_node("down", cordoned=True, ready="Unknown"),
        ],
        id="cordoned",
    ),
    pytest.param(["no ready node"], "Add a node", [make_node("down", ready="Unknown")], id="no ready node"),
    pytest.param(["64 nvidia.com/gpu", "0/3 nodes"], "ask for less", [], id="nodes not visible"),
]


@pytest.mark.parametrize(("messages", "hint", "nodes"), NODE_CASES)
def test_unschedulable_says_what_was_asked_and_what_there_is(messages: list[str], hint: str, nodes: list[Obj]) -> None:
    pod = make_pod(conditions=unscheduled("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."), requests=GPUS)
    failure = classify([pod], nodes=nodes)
    assert failure is not None
    assert failure.reason == "Unschedulable"
    for message in messages:
        assert message in failure.message
    assert hint in failure.hint


def test_the_newest_pod_is_heard_first() -> None:
    older = make_pod("run-1", phase="Failed", created="2026-11-23T09:00:00Z", state=terminated(1, message="old"))
    newer = make_pod("run-2", phase="Failed", created="2026-11-23T10:00:00Z", state=terminated(1, message="new"))
    failure = classify([older, newer])
    assert failure is not None
    assert "new" in failure.message


PROGRESS = "event=progress nonce=d18d1047172d0c654f31e73789cf1e4b step=1999 total=100000 loss=4.98786"
LOG_ENDS = [
    pytest.param("Its last words: it left no message", f"{PROGRESS}\n{PROGRESS}\n", id="nothing but the protocol"),
    pytest.param("Its last words: Aborted: bus error", f"{PROGRESS}\nAborted: bus error\n", id="beside the protocol"),
    pytest.param(
        "Its last words: it left no message",
        "\n".join([PROGRESS] * 30)[-2048:],
        id="the first line was cut in two",
    ),
    pytest.param("Its last words: boom", "boom\n", id="no protocol at all"),
]


@pytest.mark.parametrize(("expected", "log"), LOG_ENDS)
def test_of_the_end_of_a_log_the_protocol_is_left_out(expected: str, log: str) -> None:
    """As a kubelet gives it where a container that was killed left no message (FallbackToLogsOnError)."""
    failure = classify([make_pod(phase="Failed", state=terminated(137, message=log))])
    assert failure is not None
    assert failure.message.endswith(expected)


def test_an_endless_last_message_is_cut() -> None:
    failure = classify([make_pod(phase="Failed", state=terminated(1, message="x" * 100_000))])
    assert failure is not None
    assert len(failure.message) <= 2000


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (Decimal("0.5"), "500m"),
        (16 * Decimal(1024) ** 3, "16Gi"),
        (Decimal(2), "2"),
        (Decimal(1500), "1.5k"),
        (Decimal(1000), "1e3"),
        (Decimal("0.1"), ".1"),
    ],
)
def test_quantities_are_read(expected: Decimal, text: str) -> None:
    assert parse_quantity(text) == expected


@pytest.mark.parametrize("text", ["", "lots", "1Q", "1 Gi x"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|suffix"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("expected", "name", "text"),
    [
        ("64 nvidia.com/gpu", "nvidia.com/gpu", "64"),
        ("0.5 CPU", "cpu", "500m"),
        ("50m CPU", "cpu", "50m"),
        ("16Gi memory", "memory", "16Gi"),
        ("1.5Gi memory", "memory", "1536Mi"),
        ("100 memory", "memory", "100"),
    ],
)
def test_amounts_are_said(expected: str, name: str, text: str) -> None:
    assert say_amount(name, parse_quantity(text)) == expected
