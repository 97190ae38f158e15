"""Pods on the local cluster: when they start, what they get, and why they are restarted or killed."""

import json

from codetune_local.daemon.trial import TrialCluster
from integration.local_cluster.workloads import Namespace, Obj, bare_pod


def test_a_pod_that_asks_for_gpus_waits_and_starts_by_itself_when_there_are_some(here: Namespace) -> None:
    here.apply(
        bare_pod(
            "greedy",
            "echo gpus $CUDA_VISIBLE_DEVICES; sleep 60",
            extra={"resources": {"limits": {"nvidia.com/gpu": 2}}},
        )
    )
    pod = here.wait_until(lambda: unscheduled(here, "greedy"), "it is refused")
    assert pod["reason"] == "Unschedulable"
    assert pod["message"].startswith("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    here.wait_until(lambda: "FailedScheduling" in here.event_reasons("greedy"), "an Event says so")
    set_gpus(here.cluster, 2)
    here.wait_for_condition("pod/greedy", "Ready")
    here.wait_until(lambda: here.kubectl("logs", "greedy").strip() == "gpus 0,1", "it was given both")
    set_gpus(here.cluster, 0)


def unscheduled(here: Namespace, name: str) -> Obj | None:
    conditions = here.get("pod", name)["status"].get("conditions", [])
    return next((found for found in conditions if found["type"] == "PodScheduled" and found["status"] == "False"), None)


def set_gpus(running: TrialCluster, count: int) -> None:
    amounts = {"nvidia.com/gpu": str(count)}
    patch = json.dumps({"status": {"capacity": amounts, "allocatable": amounts}})
    running.kubectl("patch", "node", "codetune-local", "--subresource=status", "--type=merge", "-p", patch)


def test_a_crashing_container_backs_off_and_keeps_the_log_of_the_run_before(here: Namespace) -> None:
    here.apply(bare_pod("crash", "echo run; exit 7"))

    def status() -> Obj:
        entries = here.get("pod", "crash")["status"].get("containerStatuses", [{"state": {}, "restartCount": 0}])
        found: Obj = entries[0]
        return found

    def backs_off() -> bool:
        return bool(
            status()["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff" and status()["restartCount"] > 1
        )

    here.wait_until(backs_off, "it backs off")
    assert status()["lastState"]["terminated"]["exitCode"] == 7
    assert here.kubectl("logs", "crash", "--previous").strip() == "run"
    assert "BackOff" in here.event_reasons("crash")


def test_a_container_has_started_when_its_startup_probe_says_so_though_it_is_never_ready(here: Namespace) -> None:
    probes = {
        name: {"exec": {"command": ["sh", "-c", text]}, "periodSeconds": 1}
        for name, text in (("startupProbe", "true"), ("readinessProbe", "false"))
    }
    here.apply(bare_pod("waiting", "sleep 60", extra=probes))

    def told() -> bool:
        (entry,) = here.get("pod", "waiting")["status"].get("containerStatuses") or [{}]
        return bool(entry.get("started"))

    here.wait_until(told, "the container has started")
    (entry,) = here.get("pod", "waiting")["status"]["containerStatuses"]
    assert not entry["ready"]


def test_a_failing_liveness_probe_restarts_and_a_failing_readiness_probe_does_not(here: Namespace) -> None:
    probe = {"exec": {"command": ["sh", "-c", "test ! -e $HOME/sick"]}, "periodSeconds": 1, "failureThreshold": 1}
    here.apply(
        bare_pod("alive", "sleep 1; touch $HOME/sick; sleep 60", extra={"livenessProbe": probe}),
        bare_pod("unready", "touch $HOME/sick; sleep 60", extra={"readinessProbe": probe}),
    )
    here.wait_until(lambda: here.get("pod", "alive")["status"]["containerStatuses"][0]["restartCount"], "it restarts")
    assert "Unhealthy" in here.event_reasons("alive")
    unready = here.get("pod", "unready")["status"]
    assert unready["phase"] == "Running"
    assert (unready["containerStatuses"][0]["ready"], unready["containerStatuses"][0]["restartCount"]) == (False, 0)


def test_init_containers_run_first_and_in_order(here: Namespace) -> None:
    inits = [
        {
            "name": name,
            "image": "busybox",
            "command": ["sh", "-c", f"echo {name} >> /work/order"],
            "volumeMounts": MOUNT,
        }
        for name in ("first", "second")
    ]
    pod = bare_pod("ordered", "cat /work/order", extra={"volumeMounts": MOUNT}, restartPolicy="Never")
    pod["spec"] |= {"initContainers": inits, "volumes": [{"name": "work", "emptyDir": {}}]}
    here.apply(pod)
    here.wait_until(lambda: here.get("pod", "ordered")["status"].get("phase") == "Succeeded", "it is done")
    assert here.kubectl("logs", "ordered", "-c", "main").split() == ["first", "second"]


MOUNT = [{"name": "work", "mountPath": "/work"}]


def test_a_changed_configmap_reaches_the_running_pod(here: Namespace) -> None:
    here.kubectl("create", "configmap", "settings", "--from-literal=color=red")
    volume = {"volumes": [{"name": "settings", "configMap": {"name": "settings"}}]}
    mount = {"volumeMounts": [{"name": "settings", "mountPath": "/etc/settings"}]}
    here.apply(
        bare_pod("reader", "while true; do cat /etc/settings/color; echo; sleep 0.1; done", extra=mount, **volume)
    )
    here.wait_until(lambda: "red" in here.kubectl("logs", "reader", check=False), "it reads the old value")
    here.kubectl("patch", "configmap", "settings", "--type=merge", "-p", '{"data":{"color":"blue"}}')
    here.wait_until(lambda: here.kubectl("logs", "reader", "--tail=1").strip() == "blue", "it reads the new value")


def test_a_missing_configmap_holds_a_container_until_it_comes(here: Namespace) -> None:
    reference = {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "color"}}}
    here.apply(bare_pod("patient", "echo $COLOR; sleep 60", extra={"env": [reference]}))

    def reason() -> str | None:
        entries = here.get("pod", "patient")["status"].get("containerStatuses", [{"state": {}}])
        found: str | None = entries[0]["state"].get("waiting", {}).get("reason")
        return found

    here.wait_until(lambda: reason() == "CreateContainerConfigError", "it waits")
    here.kubectl("create", "configmap", "late", "--from-literal=color=green")
    here.wait_for_condition("pod/patient", "Ready")
    here.wait_until(lambda: here.kubectl("logs", "patient").strip() == "green", "it has the value")


def test_a_container_over_its_memory_limit_is_killed_and_says_so(here: Namespace) -> None:
    hungry = {
        "command": ["python3", "-c", "import time; kept = bytearray(120 << 20); time.sleep(60)"],
        "image": "python",
    }
    limits = {"resources": {"limits": {"memory": "50Mi"}}}
    here.apply(bare_pod("hungry", "", extra={**hungry, **limits}, restartPolicy="Never"))
    here.wait_until(lambda: here.get("pod", "hungry")["status"].get("phase") == "Failed", "it is killed")
    ended = here.get("pod", "hungry")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_socket_fits_into_the_temporary_folder_however_deep_the_state_lies(here: Namespace) -> None:
    bind = "s.bind(f'{tempfile.gettempdir()}/{uuid.uuid4()}')"
    code = f"import socket, tempfile, uuid; s = socket.socket(socket.AF_UNIX); {bind}"
    volume = {"volumes": [{"name": "scratch", "emptyDir": {}}]}
    mounted = {"volumeMounts": [{"name": "scratch", "mountPath": "/codetune/scratch"}]}
    env = {"env": [{"name": "TMPDIR", "value": "/codetune/scratch"}]}
    for name, more in (("own", {}), ("volume", {**mounted, **env})):
        extra = {"image": "python", "command": ["python3", "-c", code], **more}
        here.apply(bare_pod(name, "", extra=extra, restartPolicy="Never", **volume))
    for name in ("own", "volume"):
        here.wait_until(
            lambda name=name: here.get("pod", name)["status"].get("phase") in ("Succeeded", "Failed"), "it ended"
        )
        assert here.get("pod", name)["status"]["phase"] == "Succeeded", here.kubectl("logs", name)
