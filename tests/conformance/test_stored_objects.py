"""How objects are stored: what the server sets, names, versions, selectors, pages, deletion."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.conftest import Api, Widgets

Obj = dict[str, Any]
CONFIGS = "/api/v1/namespaces/{}/configmaps"


def make_config(name: str, data: Obj | None = None, **metadata: Any) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": data or {"a": "1"}}


def make_pod(name: str, **metadata: Any) -> Obj:
    spec = {"containers": [{"name": "main", "image": "registry.invalid/none:1"}], "nodeSelector": {"no-such": "node"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


# -- what the server sets


def test_a_created_object_has_identity_version_generation_and_time(store: "Widgets") -> None:
    metadata = store.create("one")["metadata"]
    assert metadata["uid"]
    assert metadata["resourceVersion"].isdigit()
    assert metadata["generation"] == 1
    assert metadata["creationTimestamp"].endswith("Z")


def test_what_only_the_server_sets_is_taken_from_nobody(store: "Widgets") -> None:
    claimed: Obj = {"uid": "mine", "generation": 7, "creationTimestamp": "2001-01-01T00:00:00Z"}
    metadata = store.create("one", **claimed)["metadata"]
    assert all(metadata[key] != value for key, value in claimed.items())


def test_a_resource_version_is_refused_on_creation(store: "Widgets", api: "Api") -> None:
    reply = api.call("POST", store.path(), store.build("one", resourceVersion="5"))
    assert (reply.status, reply.message) == (500, "resourceVersion should not be set on objects to be created")


def test_a_generated_name_is_the_prefix_and_five_characters(store: "Widgets", api: "Api") -> None:
    body = store.build("", generateName="some-")
    del body["metadata"]["name"]
    names = {api.call("POST", store.path(), body).body["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("some-") and len(name) == 10 for name in names)


def test_the_generation_counts_changes_of_the_spec_alone(store: "Widgets") -> None:
    store.create("one")
    store.patch("one", {"metadata": {"labels": {"a": "b"}}})
    store.patch("one", {"status": {"phase": "Busy"}}, subresource="status")
    assert store.get("one")["metadata"]["generation"] == 1
    store.patch("one", {"spec": {"size": 5}})
    assert store.get("one")["metadata"]["generation"] == 2


def test_a_write_that_changes_nothing_keeps_the_version(store: "Widgets") -> None:
    store.create("one")
    # The first write of all may be stored: what was created lies there as it came, not as it would be written now.
    before, after = (store.patch("one", {"spec": {"model": "a"}}).body["metadata"] for _ in range(2))
    assert after["resourceVersion"] == before["resourceVersion"]


def test_a_dry_run_answers_and_stores_nothing(store: "Widgets", api: "Api") -> None:
    reply = api.call("POST", store.path(), store.build("one"), dryRun="All")
    assert (reply.status, reply.body["spec"]["size"]) == (201, 3)
    assert api.call("GET", store.path("one")).status == 404


# -- refusals

REFUSALS: dict[str, tuple[str, str, Obj | None, int, str, str]] = {
    "an object that is not there": ("GET", "/none", None, 404, "NotFound", 'configmaps "none" not found'),
    "deleting what is not there": ("DELETE", "/none", None, 404, "NotFound", 'configmaps "none" not found'),
    "updating what is not there": ("PUT", "/none", make_config("none"), 404, "NotFound", 'configmaps "none" not found'),
    "a name in use": ("POST", "", make_config("used"), 409, "AlreadyExists", 'configmaps "used" already exists'),
    "no name at all": ("POST", "", make_config(""), 422, "Invalid", "name or generateName is required"),
    "capitals in a name": (
        "POST",
        "",
        make_config("Used"),
        422,
        "Invalid",
        "a lowercase RFC 1123 subdomain must consist",
    ),
    "an underscore in a name": ("POST", "", make_config("u_d"), 422, "Invalid", 'metadata.name: Invalid value: "u_d"'),
    "a label value with a space": (
        *("POST", "", make_config("x", labels={"a": "b c"}), 422, "Invalid"),
        'metadata.labels: Invalid value: "b c"',
    ),
    "a label key with two slashes": (
        *("POST", "", make_config("x", labels={"a/b/c": "d"}), 422, "Invalid"),
        'metadata.labels: Invalid value: "a/b/c"',
    ),
    "a finalizer without a domain": (
        *("POST", "", make_config("x", finalizers=["mine"]), 422, "Invalid"),
        "name is neither a standard finalizer name nor is it fully qualified",
    ),
    "an owner without a uid": (
        *("POST", "", make_config("x", ownerReferences=[{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}])),
        *(422, "Invalid", "metadata.ownerReferences"),
    ),
    "a data key with a slash": ("POST", "", make_config("x", {"a/b": "1"}), 422, "Invalid", "data[a/b]"),
    "another kind's object": ("POST", "", make_pod("x"), 400, "BadRequest", ""),
    "another name than the path's": (
        "PUT",
        "/used",
        make_config("other"),
        400,
        "BadRequest",
        "does not match the name",
    ),
    "another namespace than the path's": (
        *("POST", "", make_config("x", namespace="elsewhere"), 400, "BadRequest"),
        "does not match the namespace sent on the request",
    ),
    "data of the wrong type": (
        "POST",
        "",
        make_config("x", {"a": 1}),
        400,
        "BadRequest",
        "cannot be handled as a ConfigMap",
    ),
}


@pytest.mark.parametrize("row", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_bad_request_is_refused_with_its_reason(api: "Api", namespace: str, row: Any) -> None:
    method, path, body, status, reason, text = row
    folder = CONFIGS.format(namespace)
    assert api.call("POST", folder, make_config("used")).status == 201
    reply = api.call(method, folder + path, body)
    assert (reply.status, reply.body["kind"], reply.body["reason"]) == (status, "Status", reason)
    assert text in reply.message


def test_a_resource_that_is_not_served_is_not_found(api: "Api") -> None:
    assert api.call("GET", "/apis/conformance.example.com/v1/gadgets").status == 404
    assert api.call("GET", "/apis/none.example.com/v1").status == 404


def test_nothing_is_created_in_a_namespace_that_is_not_there(api: "Api") -> None:
    reply = api.call("POST", CONFIGS.format("no-such-namespace"), make_config("x"))
    assert (reply.status, reply.message) == (404, 'namespaces "no-such-namespace" not found')


# -- concurrency


def test_an_update_from_a_stale_version_is_a_conflict(store: "Widgets", api: "Api") -> None:
    stale = store.create("one")
    store.patch("one", {"spec": {"size": 5}})
    reply = api.call("PUT", store.path("one"), {**stale, "spec": {"model": "a", "size": 9}})
    assert (reply.status, reply.body["reason"]) == (409, "Conflict")
    assert reply.message == (
        'Operation cannot be fulfilled on widgets.conformance.example.com "one": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert store.get("one")["spec"]["size"] == 5


def test_a_custom_object_is_not_replaced_without_a_version(store: "Widgets", api: "Api") -> None:
    store.create("one")
    reply = api.call("PUT", store.path("one"), store.build("one"))
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    assert "must be specified for an update" in reply.message


def test_a_patch_may_ask_for_a_version(store: "Widgets") -> None:
    version = store.create("one")["metadata"]["resourceVersion"]
    assert store.patch("one", {"metadata": {"resourceVersion": version}, "spec": {"size": 5}}).status == 200
    assert store.patch("one", {"metadata": {"resourceVersion": version}, "spec": {"size": 6}}).status == 409


def test_a_deletion_may_ask_for_a_uid(store: "Widgets", api: "Api") -> None:
    uid = store.create("one")["metadata"]["uid"]
    assert api.call("DELETE", store.path("one"), {"preconditions": {"uid": "other"}}).status == 409
    assert api.call("DELETE", store.path("one"), {"preconditions": {"uid": uid}}).status == 200


# -- selectors and pages

SELECTIONS: dict[str, tuple[str, str, set[str]]] = {
    "equal": ("labelSelector", "tier=web", {"a", "b"}),
    "equal, written twice": ("labelSelector", "tier==web", {"a", "b"}),
    "not equal, which takes in what lacks the label": ("labelSelector", "tier!=web", {"c", "d"}),
    "one of several": ("labelSelector", "tier in (web, db)", {"a", "b", "c"}),
    "none of several": ("labelSelector", "tier notin (web,db)", {"d"}),
    "there": ("labelSelector", "tier", {"a", "b", "c"}),
    "not there": ("labelSelector", "!tier", {"d"}),
    "all of several": ("labelSelector", "tier=web,zone=2", {"b"}),
    "a name": ("fieldSelector", "metadata.name=c", {"c"}),
    "every name but one": ("fieldSelector", "metadata.name!=c", {"a", "b", "d"}),
}


@pytest.mark.parametrize("row", SELECTIONS.values(), ids=SELECTIONS.keys())
def test_a_selector_selects(store: "Widgets", api: "Api", row: Any) -> None:
    parameter, selector, expected = row
    for name, labels in {"a": {"tier": "web"}, "b": {"tier": "web", "zone": "2"}, "c": {"tier": "db"}, "d": {}}.items():
        store.create(name, labels=labels)
    items = api.call("GET", store.path(), **{parameter: selector}).body["items"]
    assert {item["metadata"]["name"] for item in items} == expected


def test_pods_are_selected_by_phase_and_node(api: "Api", namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    assert api.call("POST", path, make_pod("one")).status == 201
    found = {
        query: len(api.call("GET", path, fieldSelector=query).body["items"])
        for query in ("status.phase=Pending", "status.phase=Running", "spec.nodeName=", "spec.nodeName=some")
    }
    assert list(found.values()) == [1, 0, 1, 0]


@pytest.mark.parametrize("selector", ["tier in web", "=a", "a=b=c"])
def test_a_selector_that_makes_no_sense_is_refused(store: "Widgets", api: "Api", selector: str) -> None:
    assert api.call("GET", store.path(), labelSelector=selector).status == 400


def test_a_field_that_is_not_selectable_is_refused(store: "Widgets", api: "Api") -> None:
    reply = api.call("GET", store.path(), fieldSelector="spec.model=a")
    assert (reply.status, reply.message) == (400, "field label not supported: spec.model")


def test_a_list_comes_in_pages(store: "Widgets", api: "Api") -> None:
    for name in "abcde":
        store.create(name)
    first = api.call("GET", store.path(), limit=2).body
    assert [item["metadata"]["name"] for item in first["items"]] == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 3
    rest = api.call("GET", store.path(), limit=5, **{"continue": first["metadata"]["continue"]}).body
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c", "d", "e"]
    assert not rest["metadata"].get("continue")


def test_a_list_over_all_namespaces_holds_each_of_them(store: "Widgets", api: "Api") -> None:
    store.create("one")
    body = api.call("GET", "/apis/conformance.example.com/v1/widgets").body
    assert (body["kind"], body["apiVersion"]) == ("WidgetList", "conformance.example.com/v1")
    assert store.namespace in {item["metadata"]["namespace"] for item in body["items"]}


def test_a_selection_is_deleted_together(store: "Widgets", api: "Api") -> None:
    for name, tier in {"a": "web", "b": "web", "c": "db"}.items():
        store.create(name, labels={"tier": tier})
    assert api.call("DELETE", store.path(), labelSelector="tier=web").status == 200
    assert [item["metadata"]["name"] for item in api.call("GET", store.path()).body["items"]] == ["c"]


# -- deletion


def test_a_deletion_answers_success_and_removes(store: "Widgets", api: "Api") -> None:
    uid = store.create("one")["metadata"]["uid"]
    reply = api.call("DELETE", store.path("one"))
    assert (reply.body["kind"], reply.body["status"], reply.body["details"]["uid"]) == ("Status", "Success", uid)
    assert api.call("GET", store.path("one")).status == 404


def test_a_finalizer_holds_an_object_until_it_is_taken_away(store: "Widgets", api: "Api") -> None:
    store.create("one", finalizers=["example.com/hold"])
    reply = api.call("DELETE", store.path("one"))
    assert (reply.status, reply.body["kind"]) == (200, "Widget")
    marked = store.get("one")["metadata"]
    assert marked["deletionTimestamp"]
    assert marked["deletionGracePeriodSeconds"] == 0
    again = api.call("DELETE", store.path("one"))
    assert again.body["metadata"]["deletionTimestamp"] == marked["deletionTimestamp"]
    last = store.patch("one", {"metadata": {"finalizers": None}})
    # Of the version that was before: nothing was stored.
    assert (last.status, last.body["metadata"]["resourceVersion"]) == (200, marked["resourceVersion"])
    assert "finalizers" not in last.body["metadata"]
    assert api.call("GET", store.path("one")).status == 404


def test_no_finalizer_is_added_to_what_is_being_deleted(store: "Widgets", api: "Api") -> None:
    store.create("one", finalizers=["example.com/hold"])
    api.call("DELETE", store.path("one"))
    reply = store.patch("one", {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}})
    assert (reply.status, set(reply.causes)) == (422, {("metadata.finalizers", "FieldValueForbidden")})
    store.patch("one", {"metadata": {"finalizers": None}})


@pytest.mark.parametrize(
    ("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")], ids=["foreground", "orphan"]
)
def test_a_propagation_policy_becomes_a_finalizer(api: "Api", namespace: str, policy: str, finalizer: str) -> None:
    path = CONFIGS.format(namespace)
    # The second finalizer keeps the object where a garbage collector runs.
    api.call("POST", path, make_config("one", finalizers=["example.com/hold"]))
    body = api.call("DELETE", f"{path}/one", {"propagationPolicy": policy}).body
    assert finalizer in body["metadata"]["finalizers"]
    api.call("PATCH", f"{path}/one", {"metadata": {"finalizers": None}}, content="merge")


def test_a_pod_without_a_node_goes_at_once(api: "Api", namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    api.call("POST", path, make_pod("one"))
    assert api.call("DELETE", f"{path}/one").status == 200
    assert api.call("GET", f"{path}/one").status == 404


def test_a_namespace_that_ends_takes_nothing_new(api: "Api", namespace: str) -> None:
    api.call("POST", CONFIGS.format(namespace), make_config("hold", finalizers=["example.com/hold"]))
    ending = api.call("DELETE", f"/api/v1/namespaces/{namespace}").body
    assert ending["status"]["phase"] == "Terminating"
    reply = api.call("POST", CONFIGS.format(namespace), make_config("late"))
    assert (reply.status, reply.body["reason"]) == (403, "Forbidden")
    assert f"unable to create new content in namespace {namespace} because it is being terminated" in reply.message
    hold = f"{CONFIGS.format(namespace)}/hold"
    api.call("PATCH", hold, {"metadata": {"finalizers": None}}, content="merge")
