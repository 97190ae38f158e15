"""A definition that became stricter while its objects were there: it holds for what an update changes."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.conftest import Api

Obj = dict[str, Any]

GROUP = "ratcheting.example.com"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = f"trials.{GROUP}"
OLD: Obj = {"text": "long", "word": "b", "ruled": 20, "other": "x", "keyed": [{"name": "a", "size": 20}]}


def make_definition(*, is_strict: bool) -> Obj:
    size: Obj = {"type": "integer"}
    text: Obj = {"type": "string"}
    word: Obj = {"type": "string"}
    ruled: Obj = {"type": "integer"}
    if is_strict:
        size["maximum"], text["maxLength"], word["enum"] = 10, 2, ["a"]
        ruled["x-kubernetes-validations"] = [{"rule": "self <= 10", "message": "at most 10"}]
    item = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "size": size}}
    keyed = {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    fields = {"text": text, "word": word, "ruled": ruled, "other": {"type": "string"}, "keyed": keyed}
    status = {"type": "object", "properties": {"phase": {"type": "string"}}}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}, "status": status}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "trials", "singular": "trial", "kind": "Trial"}
    spec = {"group": GROUP, "scope": "Namespaced", "names": names}
    about = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": NAME}}
    return {**about, "spec": {**spec, "versions": [{**version, "subresources": {"status": {}}}]}}


def build(name: str) -> Obj:
    return {"apiVersion": f"{GROUP}/v1", "kind": "Trial", "metadata": {"name": name}, "spec": OLD}


@pytest.fixture
def path(api: "Api", namespace: str) -> Iterator[str]:
    """Where an object lies that was stored before its definition became stricter."""
    made = f"/apis/{GROUP}/v1/namespaces/{namespace}/trials"
    assert api.call("POST", DEFINITIONS, make_definition(is_strict=False)).status == 201
    try:
        wait_for(api, 201, "POST", made, build("one"))
        stricter = {"spec": {"versions": make_definition(is_strict=True)["spec"]["versions"]}}
        assert api.call("PATCH", f"{DEFINITIONS}/{NAME}", stricter, content="merge").status == 200
        wait_for(api, 422, "POST", made, build("two"), dryRun="All")
        yield f"{made}/one"
    finally:
        api.call("DELETE", f"{DEFINITIONS}/{NAME}")
        wait_for(api, 404, "GET", f"{DEFINITIONS}/{NAME}")


def wait_for(api: "Api", status: int, method: str, path: str, body: Obj | None = None, **query: str) -> None:
    deadline = time.monotonic() + 30
    while (reply := api.call(method, path, body, **query)).status != status:
        assert time.monotonic() < deadline, reply
        time.sleep(0.05)


def test_what_an_update_changes_is_held_against_it_and_nothing_else(api: "Api", path: str) -> None:
    def patch(spec: Obj) -> Any:
        reply = api.call("PATCH", path, {"spec": spec}, content="merge")
        return reply.status, sorted(where for where, _ in reply.causes) if reply.status == 422 else []

    assert patch({"other": "y"}) == (200, [])
    assert patch({"keyed": [{"name": "b", "size": 1}, *OLD["keyed"]]}) == (200, [])
    assert patch({"text": "longer"}) == (422, ["spec.text"])
    assert patch({"word": "c"}) == (422, ["spec.word"])
    assert patch({"ruled": 21}) == (422, ["spec.ruled"])
    assert patch({"keyed": [{"name": "a", "size": 21}]}) == (422, ["spec.keyed[0].size"])
    assert patch({"text": "ok", "word": "a", "ruled": 1}) == (200, [])
    assert patch({"text": "long"}) == (422, ["spec.text"])


def test_its_status_can_be_written(api: "Api", path: str) -> None:
    reply = api.call("PATCH", f"{path}/status", {"status": {"phase": "Ready"}}, content="merge")
    assert (reply.status, reply.body["status"]) == (200, {"phase": "Ready"})
