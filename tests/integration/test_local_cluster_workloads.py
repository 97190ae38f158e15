"""The local cluster as its users meet it: kubectl against a real daemon, pods as real processes.

One cluster serves all tests of this file, each in a namespace of its own.
"""

import itertools
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from codetune_local.daemon.trial import TrialCluster, cluster

Obj = dict[str, Any]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialCluster]:
    deep = tmp_path_factory.mktemp("cluster") / ("deep" * 20)  # sockets must fit all the same
    with cluster(deep, "--job-backoff", "0.3", "--restart-backoff", "0.5") as running:
        yield running


@pytest.fixture
def here(shared: TrialCluster) -> Iterator["Namespace"]:
    namespace = Namespace(shared, f"test-{next(_numbers)}")
    shared.kubectl("create", "namespace", namespace.name)
    yield namespace
    shared.kubectl("delete", "namespace", namespace.name, "--wait=false", check=False)


class Namespace:
    """kubectl in one namespace."""

    def __init__(self, running: TrialCluster, name: str) -> None:
        self.cluster = running
        self.name = name

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments, check=check)

    def apply(self, *objects: Obj) -> None:
        for obj in objects:
            obj["metadata"]["namespace"] = self.name
        self.cluster.apply(*objects)

    def get(self, *arguments: str) -> Any:
        return self.cluster.get("-n", self.name, *arguments)

    def pods(self, label: str) -> list[Obj]:
        found: list[Obj] = self.get("pods", "-l", label)["items"]
        return found

    def wait_until(self, ready: Any, what: str, seconds: float = 20) -> Any:
        return self.cluster.wait_for(ready, what, seconds)

    def wait_for_condition(self, target: str, condition: str, seconds: int = 20) -> None:
        self.kubectl("wait", f"--for=condition={condition}", target, f"--timeout={seconds}s")

    def event_reasons(self, name: str) -> list[str]:
        events = self.get("events", "--field-selector", f"involvedObject.name={name}")["items"]
        return [event["reason"] for event in events]


def container(script: str, **more: Any) -> Obj:
    return {"name": "main", "image": "local/exec", "command": ["sh", "-c", script], **more}


def job(name: str, script: str, *, pod: Obj | None = None, extra: Obj | None = None, **spec: Any) -> Obj:
    """A Job with one shell script; `extra` goes into its container, `pod` into the pod's spec."""
    template = {"restartPolicy": "Never", "containers": [container(script, **(extra or {}))], **(pod or {})}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {**spec, "template": {"spec": template}},
    }


def bare_pod(name: str, script: str, *, extra: Obj | None = None, **spec: Any) -> Obj:
    metadata = {"name": name, "labels": {"app": name}}
    body = {"containers": [container(script, **(extra or {}))], "terminationGracePeriodSeconds": 1, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}


def test_a_job_runs_to_completion_and_its_log_can_be_followed(here: Namespace) -> None:
    here.apply(job("hello", "echo one; sleep 0.3; echo two"))
    here.wait_until(lambda: here.pods("job-name=hello"), "the pod is there")
    here.wait_until(lambda: here.pods("job-name=hello")[0]["status"].get("startTime"), "the pod runs")
    here.wait_until(lambda: "waiting to start" not in here.kubectl("logs", "job/hello", check=False), "it has a log")
    assert here.kubectl("logs", "-f", "job/hello").splitlines() == ["one", "two"]
    here.wait_for_condition("job/hello", "Complete")
    (pod,) = here.pods("job-name=hello")
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (pod["status"]["phase"], state["exitCode"], state["reason"]) == ("Succeeded", 0, "Completed")
    assert here.get("job", "hello")["status"]["succeeded"] == 1


def test_logs_go_on_exactly_after_a_time_that_was_seen(here: Namespace) -> None:
    here.apply(job("lines", "for i in 1 2 3 4 5; do echo line $i; done"))
    here.wait_for_condition("job/lines", "Complete")
    stamped = here.kubectl("logs", "job/lines", "--timestamps").splitlines()
    moments = [line.partition(" ")[0] for line in stamped]
    assert moments == sorted(set(moments))
    assert [line.partition(" ")[2] for line in stamped] == [f"line {number}" for number in range(1, 6)]
    assert here.kubectl("logs", "job/lines", "--tail=2").splitlines() == ["line 4", "line 5"]
    path = f"/api/v1/namespaces/{here.name}/pods/{here.pods('job-name=lines')[0]['metadata']['name']}/log"
    later = here.kubectl("get", "--raw", f"{path}?sinceTime={moments[3]}").splitlines()  # kubectl logs sends seconds
    assert later == ["line 4", "line 5"]
    assert here.kubectl("logs", "job/lines", "--limit-bytes=6") == "line 1"


def test_a_killed_process_is_a_failure_and_the_next_pod_takes_over(here: Namespace) -> None:
    here.apply(
        job("train", "test -e $STORE/ran && exit 0; touch $STORE/ran; sleep 60", **stored("store")), claim("store")
    )
    pod = here.wait_until(lambda: running_pods(here, "job-name=train"), "the first pod runs")[0]
    (pid,) = here.cluster.processes_of(pod["metadata"]["uid"])
    os.kill(pid, signal.SIGKILL)
    here.wait_for_condition("job/train", "Complete")
    status = here.get("job", "train")["status"]
    assert (status["failed"], status["succeeded"]) == (1, 1)
    first = here.get("pod", pod["metadata"]["name"])["status"]
    assert first["phase"] == "Failed"
    assert first["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


def running_pods(here: Namespace, label: str) -> list[Obj]:
    """Pods whose containers have processes."""
    return [pod for pod in here.pods(label) if here.cluster.processes_of(pod["metadata"]["uid"])]


def claim(name: str) -> Obj:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def stored(claim_name: str) -> Obj:
    """Arguments of `job` that mount a claim at /store and tell its path in STORE."""
    return {
        "pod": {"volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": claim_name}}]},
        "extra": {
            "volumeMounts": [{"name": "store", "mountPath": "/store"}],
            "env": [{"name": "STORE", "value": "/store"}],
        },
    }


def test_a_job_that_keeps_failing_gives_up_at_its_limit(here: Namespace) -> None:
    here.apply(job("bad", "echo no; exit 3", backoffLimit=2))
    here.wait_for_condition("job/bad", "Failed")
    failed = next(found for found in here.get("job", "bad")["status"]["conditions"] if found["type"] == "Failed")
    assert failed["reason"] == "BackoffLimitExceeded"
    assert len(here.pods("job-name=bad")) == 3


def test_an_exit_code_of_the_failure_policy_ends_the_job_at_once(here: Namespace) -> None:
    policy = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [64]}}]}
    here.apply(job("pointless", 'printf \'{"reason": "x"}\' > /dev/termination-log; exit 64', podFailurePolicy=policy))
    here.wait_for_condition("job/pointless", "Failed")
    (pod,) = here.pods("job-name=pointless")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (64, '{"reason": "x"}')


def test_a_namespace_goes_with_jobs_whose_pods_no_node_takes(here: Namespace) -> None:
    waits = job("waits", "true", podReplacementPolicy="Failed")
    waits["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"memory": "900Ti"}}
    here.apply(waits)
    here.cluster.wait_for(lambda: here.pods("job-name=waits"), "the pod")
    here.kubectl("delete", "namespace", here.name, "--timeout=30s")


def test_an_indexed_job_runs_every_index_once(here: Namespace) -> None:
    here.apply(job("idx", "echo index $JOB_COMPLETION_INDEX", completionMode="Indexed", completions=3, parallelism=3))
    here.wait_for_condition("job/idx", "Complete")
    assert here.get("job", "idx")["status"]["completedIndexes"] == "0-2"
    texts = {here.kubectl("logs", pod["metadata"]["name"]).strip() for pod in here.pods("job-name=idx")}
    assert texts == {"index 0", "index 1", "index 2"}


def test_suspending_a_job_stops_its_processes_and_resuming_starts_it_again(here: Namespace) -> None:
    here.apply(job("slow", "sleep 60", pod={"terminationGracePeriodSeconds": 1}))
    (pod,) = here.wait_until(lambda: running_pods(here, "job-name=slow"), "it runs")
    (pid,) = here.cluster.processes_of(pod["metadata"]["uid"])
    here.kubectl("patch", "job", "slow", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    here.wait_for_condition("job/slow", "Suspended")
    here.wait_until(lambda: not here.pods("job-name=slow"), "the pod is gone")
    assert not os.path.exists(f"/proc/{pid}")
    assert "failed" not in here.get("job", "slow")["status"]
    here.kubectl("patch", "job", "slow", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    here.wait_until(lambda: running_pods(here, "job-name=slow"), "it runs again")


def test_a_finished_job_with_a_time_to_live_disappears_with_its_pods(here: Namespace) -> None:
    here.apply(job("brief", "true", ttlSecondsAfterFinished=1))
    here.wait_until(lambda: here.pods("job-name=brief"), "it ran")
    here.wait_until(lambda: not here.get("jobs")["items"], "the Job is gone")
    here.wait_until(lambda: not here.pods("job-name=brief"), "its pod is gone")


def test_a_deadline_stops_a_job(here: Namespace) -> None:
    here.apply(job("late", "sleep 60", activeDeadlineSeconds=1, pod={"terminationGracePeriodSeconds": 1}))
    here.wait_for_condition("job/late", "Failed")
    failed = next(found for found in here.get("job", "late")["status"]["conditions"] if found["type"] == "Failed")
    assert failed["reason"] == "DeadlineExceeded"


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


SERVER = """
import http.server, os, signal, socketserver, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    def do_GET(self):
        body = os.environ["VERSION"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = False
server = Server((os.environ["CODETUNE_BIND_HOST"], 8000), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
"""


def web_deployment(version: str, replicas: int = 2) -> Obj:
    main = {
        "name": "main",
        "image": "python",
        "command": ["python3", "-c", SERVER],
        "env": [{"name": "VERSION", "value": version}],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    }
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [main]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def web_service() -> Obj:
    spec = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}


class Visitor(threading.Thread):
    """Asks a Service again and again and remembers what it got."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.answers: list[str] = []
        self.failures: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            try:
                with urllib.request.urlopen(self.url, timeout=5) as answer:
                    self.answers.append(answer.read().decode())
            except OSError as error:
                self.failures.append(str(error))


def test_a_rolling_update_behind_a_service_loses_no_request(here: Namespace) -> None:
    here.apply(web_deployment("one"), web_service())
    here.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    address = here.get("service", "web")["spec"]["clusterIP"]
    visitor = Visitor(f"http://{address}:8080/")
    visitor.start()
    here.wait_until(lambda: visitor.answers, "the Service answers")
    here.apply(web_deployment("two"))
    here.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    here.wait_until(lambda: visitor.answers[-1] == "two", "the new version answers")
    here.wait_until(lambda: len(here.pods("app=web")) == 2, "the old pods are gone")
    visitor.over.set()
    visitor.join()
    assert visitor.failures == []
    assert set(visitor.answers) == {"one", "two"}
    here.kubectl("rollout", "undo", "deployment/web")
    here.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    assert here.get("deployment", "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


def test_a_service_without_a_ready_pod_refuses_and_scaling_brings_it_back(here: Namespace) -> None:
    here.apply(web_deployment("one", replicas=0), web_service())
    address = here.wait_until(lambda: here.get("service", "web")["spec"].get("clusterIP"), "it has an address")
    assert address.startswith("127.")
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(f"http://{address}:8080/", timeout=5)
    here.kubectl("scale", "deployment/web", "--replicas=1")
    here.wait_for_condition("deployment/web", "Available")
    here.wait_until(lambda: answers(f"http://{address}:8080/"), "the Service answers")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_deployment_that_cannot_start_says_that_it_timed_out(here: Namespace) -> None:
    broken = web_deployment("one", replicas=1)
    broken["spec"]["progressDeadlineSeconds"] = 2
    broken["spec"]["template"]["spec"]["containers"][0]["image"] = "example.com/unknown:1"
    here.apply(broken)
    pod = here.wait_until(lambda: here.pods("app=web"), "the pod is there")[0]["metadata"]["name"]

    def waiting() -> Obj:
        statuses = here.get("pod", pod)["status"].get("containerStatuses", [])
        found: Obj = statuses[0]["state"].get("waiting", {}) if statuses else {}
        return found

    here.wait_until(lambda: waiting().get("reason") in ("ErrImagePull", "ImagePullBackOff"), "the image is unknown")
    assert "knows only images named" in waiting()["message"]

    def progressing() -> Obj:
        conditions = here.get("deployment", "web")["status"]["conditions"]
        found: Obj = next(entry for entry in conditions if entry["type"] == "Progressing")
        return found

    here.wait_until(lambda: progressing()["reason"] == "ProgressDeadlineExceeded", "it timed out")
    assert progressing()["status"] == "False"


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


def test_deleting_a_namespace_takes_everything_along(here: Namespace) -> None:
    here.apply(web_deployment("one"), web_service(), claim("store"), job("slow", "sleep 60"))
    here.wait_until(lambda: running_pods(here, "app=web"), "it runs")
    uids = [pod["metadata"]["uid"] for pod in here.get("pods")["items"]]
    here.cluster.kubectl("delete", "namespace", here.name, "--timeout=40s")
    assert here.cluster.get("pods", "-A", "--field-selector", f"metadata.namespace={here.name}")["items"] == []
    assert [pid for uid in uids for pid in here.cluster.processes_of(uid)] == []
    volumes = here.cluster.get("pv")["items"]
    here.wait_until(
        lambda: (
            not [
                entry
                for entry in here.cluster.get("pv")["items"]
                if entry["spec"]["claimRef"]["namespace"] == here.name
            ]
        ),
        f"its volumes are gone: {[entry['metadata']['name'] for entry in volumes]}",
    )


@pytest.mark.parametrize(
    ("policy", "stays"),
    [pytest.param("background", False), pytest.param("foreground", False), pytest.param("orphan", True)],
)
def test_owned_objects_follow_their_owner_as_the_deletion_asks(here: Namespace, policy: str, stays: bool) -> None:
    here.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "parent"}})
    parent = here.get("configmap", "parent")["metadata"]
    owner = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "parent",
        "uid": parent["uid"],
        "blockOwnerDeletion": True,
    }
    here.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "ownerReferences": [owner]}})
    here.kubectl("delete", "configmap", "parent", f"--cascade={policy}", "--timeout=20s")
    if stays:
        time.sleep(0.5)
        assert "ownerReferences" not in here.get("configmap", "child")["metadata"]
    else:
        here.wait_until(
            lambda: "NotFound" in here.kubectl("get", "configmap", "child", check=False), "the child is gone"
        )


def test_a_claim_in_use_is_protected_and_its_folder_goes_with_it(here: Namespace) -> None:
    here.apply(claim("store"), job("user", "echo kept > /store/file; sleep 60", **stored("store")))
    here.wait_until(lambda: running_pods(here, "job-name=user"), "it runs")
    volume = here.get("pvc", "store")["spec"]["volumeName"]
    folder = here.cluster.get("pv", volume)["spec"]["hostPath"]["path"]
    here.wait_until(lambda: os.path.exists(f"{folder}/file"), "it writes into the claim")
    here.kubectl("delete", "pvc", "store", "--wait=false")
    assert here.get("pvc", "store")["metadata"]["deletionTimestamp"]
    here.kubectl("delete", "job", "user", "--cascade=foreground", "--grace-period=1", "--timeout=40s")
    here.wait_until(lambda: not os.path.exists(folder), "the folder is gone")
    assert "NotFound" in here.kubectl("get", "pvc", "store", check=False)


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
