"""The Python clients that Codetune uses: the official one, its watch, and kopf with a handler."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client, watch

if TYPE_CHECKING:
    from conformance.conftest import Api, Kubectl, Widgets

Obj = dict[str, Any]
GROUP = ("conformance.example.com", "v1")


def test_the_typed_client_reads_what_it_wrote(api: "Api", namespace: str) -> None:
    core = client.CoreV1Api(api.clients)
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"token": "abc"})
    core.create_namespaced_secret(namespace, secret)
    found: Any = core.read_namespaced_secret("s", namespace)
    assert (found.type, found.data) == ("Opaque", {"token": "YWJj"})
    assert found.metadata.creation_timestamp.tzinfo is not None


def test_the_typed_client_makes_a_job_with_its_defaults(api: "Api", namespace: str) -> None:
    container = client.V1Container(name="c", image="registry.invalid/x:1")
    pod = client.V1PodSpec(containers=[container], restart_policy="Never", node_selector={"no-such": "node"})
    template = client.V1PodTemplateSpec(spec=pod)
    job = client.V1Job(metadata=client.V1ObjectMeta(name="j"), spec=client.V1JobSpec(template=template, suspend=True))
    batch = client.BatchV1Api(api.clients)
    made: Any = batch.create_namespaced_job(namespace, job)
    spec = made.spec
    assert (spec.completions, spec.parallelism, spec.backoff_limit, spec.completion_mode) == (1, 1, 6, "NonIndexed")
    assert spec.template.metadata.labels["batch.kubernetes.io/job-name"] == "j"
    assert spec.selector.match_labels == {"batch.kubernetes.io/controller-uid": made.metadata.uid}
    assert spec.template.spec.termination_grace_period_seconds == 30
    made.spec.template.spec.containers[0].image = "registry.invalid/x:2"
    made.spec.suspend = False
    with pytest.raises(client.ApiException) as refused:
        batch.replace_namespaced_job("j", namespace, made)
    assert refused.value.status in (409, 422)


def test_an_api_error_carries_the_status(api: "Api", namespace: str) -> None:
    with pytest.raises(client.ApiException) as missing:
        client.CustomObjectsApi(api.clients).get_namespaced_custom_object(*GROUP, namespace, "widgets", "none")
    status = json.loads(str(missing.value.body))
    assert (missing.value.status, status["kind"], status["reason"]) == (404, "Status", "NotFound")


def test_a_lease_is_taken_and_renewed(api: "Api", namespace: str) -> None:
    leases = client.CoordinationV1Api(api.clients)
    spec = client.V1LeaseSpec(holder_identity="one", lease_duration_seconds=15)
    leases.create_namespaced_lease(namespace, client.V1Lease(metadata=client.V1ObjectMeta(name="l"), spec=spec))
    leases.patch_namespaced_lease("l", namespace, {"spec": {"holderIdentity": "two"}})
    found: Any = leases.read_namespaced_lease("l", namespace)
    assert found.spec.holder_identity == "two"


def test_the_watch_of_the_client_sees_changes_and_ends(api: "Api", store: "Widgets") -> None:
    store.create("a")
    store.create("b")
    watcher: Any = watch.Watch  # publishes no types
    stream = watcher().stream(
        client.CustomObjectsApi(api.clients).list_namespaced_custom_object,
        *(*GROUP, store.namespace, "widgets"),
        timeout_seconds=1,
    )
    seen = [(event["type"], event["object"]["metadata"]["name"]) for event in stream]
    assert sorted(seen) == [("ADDED", "a"), ("ADDED", "b")]


HANDLERS = """
    import kopf

    @kopf.on.startup()
    def configure(settings, **_):
        settings.persistence.finalizer = "conformance.example.com/kopf"
        settings.posting.enabled = True

    @kopf.on.create("conformance.example.com", "v1", "widgets")
    def create(patch, body, **_):
        patch.status["phase"] = "Created"
        kopf.info(body, reason="Made", message="It was made")

    @kopf.on.update("conformance.example.com", "v1", "widgets", field="spec.size")
    def update(new, patch, **_):
        patch.status["phase"] = f"Sized{new}"

    @kopf.on.delete("conformance.example.com", "v1", "widgets")
    def delete(name, namespace, **_):
        print("deleted", name, flush=True)
"""


def until(kubectl: "Kubectl", name: str, phase: str) -> None:
    kubectl("wait", f"widget/{name}", f"--for=jsonpath={{.status.phase}}={phase}", "--timeout=30s")


def test_kopf_runs_handlers_through_the_life_of_an_object(kubectl: "Kubectl", store: "Widgets", tmp_path: Path) -> None:
    handlers, log = tmp_path / "handlers.py", tmp_path / "log"
    handlers.write_text(textwrap.dedent(HANDLERS))
    command = [sys.executable, "-m", "kopf", "run", "--standalone", "-n", store.namespace, str(handlers)]
    store.create("early")
    with log.open("wb") as output:
        environment = {"KUBECONFIG": str(kubectl.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        operator = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        until(kubectl, "early", "Created")
        store.create("late")
        until(kubectl, "late", "Created")
        assert "conformance.example.com/kopf" in store.get("late")["metadata"]["finalizers"]
        store.patch("late", {"spec": {"size": 5}})
        until(kubectl, "late", "Sized5")
        kubectl("delete", "widget", "late", "--timeout=30s")
        kubectl("delete", "widget", "early", "--timeout=30s")
        deadline = time.monotonic() + 20
        while "It was made" not in (told := kubectl("get", "events", "-o", "json")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "It was made" in told
    finally:
        operator.terminate()
        code = operator.wait(timeout=30)
    text = log.read_text()
    assert {line for line in text.splitlines() if line.startswith("deleted")} == {"deleted late", "deleted early"}
    assert (code, "Traceback" in text) == (0, False), text
