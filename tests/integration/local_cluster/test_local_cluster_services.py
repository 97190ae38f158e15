"""Deployments and Services on the local cluster: updates that lose no request, and those that get no further."""

import threading
import urllib.error
import urllib.request

import pytest
from integration.local_cluster.workloads import Namespace, Obj, web_deployment, web_service


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
