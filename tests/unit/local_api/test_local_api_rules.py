"""Rules of built-in kinds in the local API server, row by row: what no schema says, and what can't change."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from codetune_local.apiserver.access.bootstrapping import bootstrap
from codetune_local.apiserver.answering.decoding import decode_json, find_duplicates
from codetune_local.apiserver.answering.protobuf import decode
from codetune_local.apiserver.errors import ApiError
from codetune_local.apiserver.registry import Registry

Obj = dict[str, Any]


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A fresh one, in memory."""
    found = Registry.open(None)
    bootstrap(found)
    yield found
    found.storage.close()


def make_pod() -> Obj:
    container = {
        "name": "main",
        "image": "x:1",
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi", "nvidia.com/gpu": 1}},
    }
    return {
        "metadata": {"name": "p"},
        "spec": {"containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]},
    }


def make_job(**spec: Any) -> Obj:
    pod = make_pod()["spec"] | {"restartPolicy": "Never"}
    return {"metadata": {"name": "j"}, "spec": {"template": {"spec": pod}, **spec}}


def make_deployment() -> Obj:
    template = {"metadata": {"labels": {"app": "d"}}, "spec": make_pod()["spec"]}
    return {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": template}}


def make_service(*ports: Obj) -> Obj:
    return {"metadata": {"name": "s"}, "spec": {"ports": list(ports)}}


def change(make: Callable[[], Obj], path: str, value: Any) -> Obj:
    """An object with one field replaced."""
    obj = make()
    found: Any = obj
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        found = found[step]
    found[last] = value
    return obj


CONTAINER = "spec.containers.0"
WRONG: dict[str, tuple[str, Obj, str]] = {
    "a mount without its volume": (
        *("pods", change(make_pod, f"{CONTAINER}.volumeMounts.0.name", "other")),
        'spec.containers[0].volumeMounts[0].name: Not found: "other"',
    ),
    "two mounts at one place": (
        *("pods", change(make_pod, f"{CONTAINER}.volumeMounts", [{"name": "data", "mountPath": "/d"}] * 2)),
        "volumeMounts[1].mountPath",
    ),
    "two containers of one name": (
        *("pods", change(make_pod, "spec.containers", [{"name": "c", "image": "x"}] * 2)),
        'spec.containers[1].name: Duplicate value: "c"',
    ),
    "no container": ("pods", change(make_pod, "spec.containers", []), "spec.containers: Required value"),
    "a request above its limit": (
        *("pods", change(make_pod, f"{CONTAINER}.resources.requests.memory", "2Gi")),
        "must be less than or equal to memory limit of 1Gi",
    ),
    "a quantity that is none": (
        *("pods", change(make_pod, f"{CONTAINER}.resources.requests.memory", "lots")),
        "quantities must match",
    ),
    "a device that is requested otherwise than limited": (
        *("pods", change(make_pod, f"{CONTAINER}.resources.requests", {"nvidia.com/gpu": 0})),
        "must be equal to nvidia.com/gpu limit of 1",
    ),
    "a Job that always restarts": (
        *("jobs.batch", change(make_job, "spec.template.spec.restartPolicy", "Always")),
        'spec.template.spec.restartPolicy: Unsupported value: "Always"',
    ),
    "an Indexed Job without an end": (
        *("jobs.batch", make_job(completionMode="Indexed", parallelism=2)),
        "spec.completions: Required value",
    ),
    "a selector that does not select its own pods": (
        *("deployments.apps", change(make_deployment, "spec.template.metadata.labels", {"app": "other"})),
        "`selector` does not match template `labels`",
    ),
    "several ports without names": (
        *("services", make_service({"port": 80}, {"port": 81})),
        "spec.ports[0].name: Required value",
    ),
    "a port that is none": ("services", make_service({"port": 0}), "must be between 1 and 65535"),
}


@pytest.mark.parametrize("row", WRONG.values(), ids=WRONG.keys())
def test_an_object_that_contradicts_itself_is_refused(registry: Registry, row: Any) -> None:
    resource, body, text = row
    with pytest.raises(ApiError) as refused:
        registry.create(registry.by_key(resource), "default", body)
    assert (refused.value.code, text in refused.value.message) == (422, True), refused.value.message


RIGHT: dict[str, tuple[str, Obj]] = {
    "a pod": ("pods", make_pod()),
    "a pod that sets a variable twice": (
        "pods",
        change(make_pod, f"{CONTAINER}.env", [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
    ),
    "a Job": ("jobs.batch", make_job()),
    "a Deployment": ("deployments.apps", make_deployment()),
    "a Service": ("services", make_service({"port": 80})),
    "a headless Service without ports": ("services", {"metadata": {"name": "s"}, "spec": {"clusterIP": "None"}}),
}


@pytest.mark.parametrize("row", RIGHT.values(), ids=RIGHT.keys())
def test_an_object_in_order_is_taken_and_can_be_written_back(registry: Registry, row: Any) -> None:
    resource, body = row
    info = registry.by_key(resource)
    stored = registry.create(info, "default", body)
    again = registry.update(info, "default", stored["metadata"]["name"], stored)
    assert again["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]


EDITS: dict[str, tuple[str, Obj, str, Any, str | None]] = {
    "a pod's image": ("pods", make_pod(), f"{CONTAINER}.image", "x:2", None),
    "a pod's command": ("pods", make_pod(), f"{CONTAINER}.command", ["y"], "pod updates may not change fields"),
    "a Job's parallelism": ("jobs.batch", make_job(), "spec.parallelism", 3, None),
    "a Job's suspension": ("jobs.batch", make_job(), "spec.suspend", True, None),
    "a Job's image": ("jobs.batch", make_job(), "spec.template.spec.containers.0.image", "x:2", "field is immutable"),
    "a running Job's nodes": (
        *("jobs.batch", make_job(), "spec.template.spec.nodeSelector", {"a": "b"}),
        "field is immutable",
    ),
    "a suspended Job's nodes": (
        *("jobs.batch", make_job(suspend=True), "spec.template.spec.nodeSelector", {"a": "b"}),
        None,
    ),
    "an elastic Job's completions": ("jobs.batch", make_job(), "spec.completions", 5, "field is immutable"),
    "a Deployment's image": (
        "deployments.apps",
        make_deployment(),
        "spec.template.spec.containers.0.image",
        "x:2",
        None,
    ),
    "a Deployment's selector": (
        *("deployments.apps", make_deployment(), "spec.selector.matchLabels", {"app": "d", "x": "y"}),
        "",
    ),
}


@pytest.mark.parametrize("row", EDITS.values(), ids=EDITS.keys())
def test_what_is_fixed_stays(registry: Registry, row: Any) -> None:
    resource, body, path, value, text = row
    info = registry.by_key(resource)
    stored = registry.create(info, "default", body)
    edited = change(lambda: copy.deepcopy(stored), path, value)
    if text is None:
        registry.update(info, "default", stored["metadata"]["name"], edited)
        return
    with pytest.raises(ApiError) as refused:
        registry.update(info, "default", stored["metadata"]["name"], edited)
    assert (refused.value.code, text in refused.value.message) == (422, True), refused.value.message


def test_an_event_is_shown_by_both_apis(registry: Registry) -> None:
    body = {
        "metadata": {"name": "e"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "note": "It shines",
        "reason": "Polished",
        "type": "Normal",
        "action": "Polish",
        "reportingController": "polisher",
        "reportingInstance": "one",
        "eventTime": "2026-02-03T04:05:06.000000Z",
    }
    registry.create(registry.find("events.k8s.io", "v1", "events"), "default", body)
    core = registry.get(registry.find("", "v1", "events"), "default", "e")
    assert (core["apiVersion"], core["message"], core["involvedObject"]["name"]) == ("v1", "It shines", "p")
    new = registry.get(registry.find("events.k8s.io", "v1", "events"), "default", "e")
    assert (new["apiVersion"], new["note"], new["regarding"]["name"]) == ("events.k8s.io/v1", "It shines", "p")


DOUBLED: dict[str, tuple[str, list[str]]] = {
    "nothing twice": ('{"a": {"b": 1}, "c": {"b": 1}}', []),
    "at the root": ('{"a": 1, "a": 2}', ["a"]),
    "deep down": ('{"spec": {"parts": [{"x": 1}, {"x": 1, "x": 2}]}}', ["spec.parts[1].x"]),
}


@pytest.mark.parametrize("row", DOUBLED.values(), ids=DOUBLED.keys())
def test_fields_that_are_set_twice_are_found(row: Any) -> None:
    text, expected = row
    assert find_duplicates(decode_json(text.encode())) == expected


def test_a_protobuf_namespace_is_read() -> None:
    # As `kubectl create namespace demo` sends it.
    about = b"\x0a\x0f\x0a\x02v1\x12\x09Namespace"
    raw = b"\x0a\x06\x0a\x04demo"
    body = b"k8s\x00" + about + b"\x12" + bytes([len(raw)]) + raw
    assert decode(body) == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}


def test_a_protobuf_body_of_another_kind_is_refused_with_the_way_out() -> None:
    about = b"\x0a\x09\x0a\x02v1\x12\x03Pod"
    with pytest.raises(ApiError) as refused:
        decode(b"k8s\x00" + about + b"\x12\x00")
    assert (refused.value.code, "kubectl apply -f" in refused.value.message) == (415, True)
