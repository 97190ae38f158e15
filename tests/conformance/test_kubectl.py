"""The real kubectl: what a person types, and what it then prints."""

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.conftest import Kubectl, Widgets

Obj = dict[str, Any]


def make_widget(name: str = "w", **spec: Any) -> Obj:
    about = {"apiVersion": "conformance.example.com/v1", "kind": "Widget", "metadata": {"name": name}}
    return {**about, "spec": {"model": "a", **spec}}


def make_config(**data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def read(kubectl: "Kubectl", *arguments: str) -> Any:
    return json.loads(kubectl("get", *arguments, "-o", "json"))


# -- apply


def test_apply_creates_configures_and_leaves_alone(kubectl: "Kubectl") -> None:
    assert kubectl("apply", "-f", "-", text=make_widget(size=4)) == "widget.conformance.example.com/w created\n"
    assert kubectl("apply", "-f", "-", text=make_widget(size=4)) == "widget.conformance.example.com/w unchanged\n"
    assert kubectl("apply", "-f", "-", text=make_widget(size=5)) == "widget.conformance.example.com/w configured\n"
    assert read(kubectl, "widget", "w")["spec"]["size"] == 5


def test_apply_removes_what_it_applied_before_and_keeps_what_others_set(kubectl: "Kubectl") -> None:
    kubectl("apply", "-f", "-", text=make_config(a="1", b="2"))
    kubectl("patch", "configmap", "c", "--type", "merge", "-p", '{"data": {"other": "3"}}')
    kubectl("apply", "-f", "-", text=make_config(a="1"))
    assert read(kubectl, "configmap", "c")["data"] == {"a": "1", "other": "3"}


def test_server_side_apply_tells_conflicts_and_takes_over_when_forced(kubectl: "Kubectl") -> None:
    server_side = ("apply", "--server-side", "-f", "-")
    assert "serverside-applied" in kubectl(*server_side, "--field-manager", "one", text=make_widget(size=4))
    refused = kubectl.run(*server_side, "--field-manager", "two", text=make_widget(size=5))
    assert refused.returncode == 1
    assert 'Apply failed with 1 conflict: conflict with "one": .spec.size' in refused.stderr
    kubectl(*server_side, "--field-manager", "two", "--force-conflicts", text=make_widget(size=5))
    assert read(kubectl, "widget", "w")["spec"]["size"] == 5


def test_apply_moves_on_to_the_server_side(kubectl: "Kubectl") -> None:
    kubectl("apply", "-f", "-", text=make_config(a="1", b="2"))
    kubectl("apply", "--server-side", "-f", "-", text=make_config(a="1"))
    assert read(kubectl, "configmap", "c")["data"] == {"a": "1"}


REFUSED: dict[str, tuple[Obj, tuple[str, ...], str]] = {
    "an unknown field": (make_widget(odd=1), (), 'strict decoding error: unknown field "spec.odd"'),
    "a wrong value": (make_widget(size=99), (), "spec.size in body should be less than or equal to 10"),
    "a broken rule": (make_widget(low=5, high=1), (), "low must not be above high"),
    "a kind that is not served": ({**make_widget(), "kind": "Gadget"}, (), 'no matches for kind "Gadget"'),
}


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED.keys())
def test_apply_is_refused_with_the_reason(kubectl: "Kubectl", row: Any) -> None:
    body, options, text = row
    done = kubectl.run("apply", *options, "-f", "-", text=body)
    assert (done.returncode, text in done.stderr) == (1, True), done.stderr


def test_apply_warns_of_an_unknown_field_when_asked_to(kubectl: "Kubectl") -> None:
    done = kubectl.run("apply", "--validate=warn", "-f", "-", text=make_widget(odd=1))
    assert (done.returncode, 'Warning: unknown field "spec.odd"' in done.stderr) == (0, True)


def test_a_changed_immutable_field_is_refused_with_its_sentence(kubectl: "Kubectl") -> None:
    kubectl("apply", "-f", "-", text=make_widget())
    done = kubectl.run("apply", "-f", "-", text=make_widget(model="b"))
    assert (done.returncode, "spec.model: Invalid value" in done.stderr, "model is immutable" in done.stderr) == (
        1,
        True,
        True,
    )


def test_a_dry_run_on_the_server_stores_nothing(kubectl: "Kubectl") -> None:
    assert "created (server dry run)" in kubectl("apply", "--dry-run=server", "-f", "-", text=make_widget())
    assert kubectl.run("get", "widget", "w").returncode == 1


def test_diff_shows_what_apply_would_change(kubectl: "Kubectl") -> None:
    kubectl("apply", "-f", "-", text=make_widget(size=4))
    done = kubectl.run("diff", "-f", "-", text=make_widget(size=5))
    assert done.returncode == 1
    assert "-  size: 4" in done.stdout
    assert "+  size: 5" in done.stdout


# -- get, describe, explain, wait


def test_get_prints_the_columns_of_the_kind(kubectl: "Kubectl", store: "Widgets") -> None:
    store.create("w")
    store.patch("w", {"status": {"phase": "Busy"}}, subresource="status")
    header, row = kubectl("get", "wdg").splitlines()
    assert header.split() == ["NAME", "PHASE", "REPLICAS", "READY", "AGE"]
    assert row.split()[:3] == ["w", "Busy", "1"]
    assert kubectl("get", "widgets", "-o", "wide").splitlines()[0].split()[4] == "MODEL"


@pytest.mark.parametrize("name", ["widgets", "widget", "wdg", "widgets.conformance.example.com", "gadgets"])
def test_a_kind_goes_by_all_its_names(kubectl: "Kubectl", store: "Widgets", name: str) -> None:
    store.create("w")
    assert kubectl("get", name, "-o", "name") == "widget.conformance.example.com/w\n"


def test_get_says_so_when_there_is_nothing(kubectl: "Kubectl") -> None:
    done = kubectl.run("get", "widgets")
    assert (done.returncode, f"No resources found in {kubectl.namespace} namespace." in done.stderr) == (0, True)
    missing = kubectl.run("get", "widget", "w")
    assert (missing.returncode, 'widgets.conformance.example.com "w" not found' in missing.stderr) == (1, True)


def test_get_watches_changes(kubectl: "Kubectl", store: "Widgets") -> None:
    store.create("w")
    command = kubectl.command("get", "widgets", "--watch", "--no-headers")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().split()[0] == "w"
            store.patch("w", {"status": {"phase": "Busy"}}, subresource="status")
            assert process.stdout.readline().split()[:2] == ["w", "Busy"]
        finally:
            process.kill()


def test_wait_ends_when_the_condition_holds(kubectl: "Kubectl", store: "Widgets") -> None:
    store.create("w")
    command = kubectl.command("wait", "widget/w", "--for=condition=Ready", "--timeout=20s")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        told = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}
        store.patch("w", {"status": told}, subresource="status")
        output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "widget.conformance.example.com/w condition met\n")


def test_wait_ends_with_a_deletion_and_with_a_field(kubectl: "Kubectl", store: "Widgets") -> None:
    store.create("w")
    assert kubectl("wait", "widget/w", "--for=jsonpath={.spec.size}=3", "--timeout=20s").endswith("condition met\n")
    kubectl("delete", "widget", "w", "--wait=false")
    kubectl("wait", "widget/w", "--for=delete", "--timeout=20s")


def test_describe_reads_like_a_report_with_its_events(kubectl: "Kubectl", store: "Widgets") -> None:
    made = store.create("w", {"model": "a", "size": 4})
    about = {"apiVersion": made["apiVersion"], "kind": "Widget", "name": "w", "namespace": kubectl.namespace}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "w.1"},
        "involvedObject": {**about, "uid": made["metadata"]["uid"]},
        "reason": "Polished",
        "message": "It shines",
        "type": "Normal",
        "firstTimestamp": "2026-02-03T04:05:06Z",
        "lastTimestamp": "2026-02-03T04:05:06Z",
        "count": 1,
        "source": {"component": "polisher"},
    }
    kubectl("create", "-f", "-", text=event)
    described = kubectl("describe", "widget", "w")
    assert "Size:" in described
    assert all(word in described for word in ("Polished", "polisher", "It shines"))
    assert "Polished" in kubectl("events", "--for", "widget/w")
    assert "widget/w" in kubectl("get", "events")


def test_explain_prints_the_descriptions(kubectl: "Kubectl") -> None:
    assert "A widget of the conformance tests." in kubectl("explain", "widget")
    explained = kubectl("explain", "widget.spec.model")
    assert ("FIELD: model <string>" in explained, "Which model." in explained) == (True, True)
    assert "restartPolicy" in kubectl("explain", "pod.spec")


def test_api_resources_lists_the_kind(kubectl: "Kubectl") -> None:
    line = kubectl("api-resources", "--api-group", "conformance.example.com", "--no-headers").split()
    assert line == ["widgets", "wdg", "conformance.example.com/v1", "true", "Widget"]


# -- changes

CHANGES: dict[str, tuple[tuple[str, ...], str, Any]] = {
    "a merge patch": (("patch", "widget", "w", "--type=merge", "-p", '{"spec": {"size": 6}}'), "size", 6),
    "a JSON patch": (
        *(("patch", "widget", "w", "--type=json", "-p", '[{"op": "replace", "path": "/spec/size", "value": 7}]'),),
        *("size", 7),
    ),
    "a scale": (("scale", "widget/w", "--replicas=4"), "replicas", 4),
}


@pytest.mark.parametrize("row", CHANGES.values(), ids=CHANGES.keys())
def test_an_object_is_changed(kubectl: "Kubectl", store: "Widgets", row: Any) -> None:
    command, field, expected = row
    store.create("w")
    kubectl(*command)
    assert store.get("w")["spec"][field] == expected


def test_the_status_is_patched_on_its_own(kubectl: "Kubectl", store: "Widgets") -> None:
    store.create("w")
    kubectl("patch", "widget", "w", "--subresource=status", "--type=merge", "-p", '{"status": {"phase": "Busy"}}')
    assert kubectl("get", "widget", "w", "-o", "jsonpath={.status.phase}") == "Busy"


def test_labels_and_annotations_come_and_go(kubectl: "Kubectl", store: "Widgets") -> None:
    store.create("w")
    kubectl("label", "widget", "w", "tier=web")
    kubectl("annotate", "widget", "w", "note=some text")
    assert kubectl("get", "widgets", "-l", "tier=web", "-o", "name") == "widget.conformance.example.com/w\n"
    kubectl("label", "widget", "w", "tier-")
    assert kubectl.run("get", "widgets", "-l", "tier=web", "-o", "name").stdout == ""


def test_an_edit_is_a_replacement_under_a_version(kubectl: "Kubectl", store: "Widgets") -> None:
    stale = store.create("w")
    store.patch("w", {"spec": {"size": 5}})
    done = kubectl.run("replace", "-f", "-", text={**stale, "spec": {"model": "a", "size": 6}})
    assert (done.returncode, "the object has been modified" in done.stderr) == (1, True)


def test_delete_waits_until_the_object_is_gone(kubectl: "Kubectl", store: "Widgets") -> None:
    store.create("w")
    assert 'widget.conformance.example.com "w" deleted' in kubectl("delete", "widget", "w", "--timeout=20s")
    assert kubectl.run("get", "widget", "w").returncode == 1
    assert kubectl("delete", "widget", "w", "--ignore-not-found") == ""


def test_delete_of_a_selection_takes_nothing_else(kubectl: "Kubectl", store: "Widgets") -> None:
    store.create("a", labels={"tier": "web"})
    store.create("b")
    kubectl("delete", "widgets", "-l", "tier=web", "--timeout=20s")
    assert kubectl("get", "widgets", "-o", "name") == "widget.conformance.example.com/b\n"


# -- what kubectl makes by itself


def test_create_makes_configs_secrets_and_roles(kubectl: "Kubectl") -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    kubectl("create", "secret", "generic", "s", "--from-literal=token=abc")
    kubectl("create", "role", "r", "--verb=get", "--resource=widgets.conformance.example.com")
    kubectl("create", "serviceaccount", "robot")
    assert read(kubectl, "configmap", "c")["data"] == {"a": "1"}
    assert read(kubectl, "secret", "s")["data"] == {"token": "YWJj"}
    assert read(kubectl, "role", "r")["rules"][0]["apiGroups"] == ["conformance.example.com"]
    assert kubectl("create", "token", "robot").count(".") == 2


def test_auth_can_i_answers_for_an_account(kubectl: "Kubectl") -> None:
    robot = f"system:serviceaccount:{kubectl.namespace}:robot"
    kubectl("create", "serviceaccount", "robot")
    assert kubectl("auth", "can-i", "list", "configmaps").strip() == "yes"
    refused = kubectl.run("auth", "can-i", "list", "configmaps", "--as", robot)
    assert (refused.returncode, refused.stdout.strip()) == (1, "no")
    kubectl("create", "role", "r", "--verb=list", "--resource=configmaps")
    kubectl("create", "rolebinding", "r", "--role=r", f"--serviceaccount={kubectl.namespace}:robot")
    deadline = time.monotonic() + 20  # a real API server learns of the binding a little later
    while kubectl.run("auth", "can-i", "list", "configmaps", "--as", robot).stdout.strip() != "yes":
        assert time.monotonic() < deadline
    assert kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", "--as", robot) == robot
