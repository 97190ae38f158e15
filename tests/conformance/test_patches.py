"""The patch forms, and server-side apply with its bookkeeping."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.conftest import Api, Reply, Widgets

Obj = dict[str, Any]

# -- merge and JSON patches

PATCHES: dict[str, tuple[str, Any, Obj]] = {
    "a merge sets, and leaves the rest": ("merge", {"spec": {"size": 5}}, {"size": 5, "color": "red"}),
    "a merge's null removes": ("merge", {"spec": {"color": None}}, {"color": None, "size": 4}),
    "a merge replaces lists": ("merge", {"spec": {"tags": ["z"]}}, {"tags": ["z"]}),
    "a merge goes deep": ("merge", {"spec": {"limits": {"y": 2}}}, {"limits": {"x": 1, "y": 2}}),
    "a JSON patch replaces": ("json-patch", [{"op": "replace", "path": "/spec/size", "value": 6}], {"size": 6}),
    "a JSON patch removes": ("json-patch", [{"op": "remove", "path": "/spec/color"}], {"color": None}),
    "a JSON patch inserts": (
        "json-patch",
        [{"op": "add", "path": "/spec/tags/1", "value": "m"}],
        {"tags": ["a", "m", "b"]},
    ),
    "a JSON patch appends": (
        "json-patch",
        [{"op": "add", "path": "/spec/tags/-", "value": "m"}],
        {"tags": ["a", "b", "m"]},
    ),
    "a JSON patch whose test holds": (
        *("json-patch", [{"op": "test", "path": "/spec/size", "value": 4}]),
        {"size": 4},
    ),
}


@pytest.mark.parametrize("row", PATCHES.values(), ids=PATCHES.keys())
def test_a_patch_changes_what_it_says(store: "Widgets", row: Any) -> None:
    content, patch, expected = row
    store.create("w", {"model": "a", "size": 4, "color": "red", "tags": ["a", "b"], "limits": {"x": 1}})
    reply = store.patch("w", patch, content)
    assert reply.status == 200, reply.body
    assert {key: reply.body["spec"].get(key) for key in expected} == expected


REFUSED: dict[str, tuple[str, Any, int]] = {
    "a JSON patch whose test fails": ("json-patch", [{"op": "test", "path": "/spec/size", "value": 9}], 422),
    "a JSON patch of what is not there": ("json-patch", [{"op": "remove", "path": "/spec/none"}], 422),
    "a strategic patch of a custom kind": ("strategic", {"spec": {"size": 5}}, 415),
    "a patch that makes the object wrong": ("merge", {"spec": {"size": 99}}, 422),
}


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED.keys())
def test_a_patch_is_refused(store: "Widgets", row: Any) -> None:
    content, patch, status = row
    store.create("w", {"model": "a"})
    assert store.patch("w", patch, content).status == status
    assert store.get("w")["spec"]["size"] == 3


def test_a_patch_of_what_is_not_there_is_not_found(store: "Widgets") -> None:
    assert store.patch("none", {"spec": {}}).status == 404


# -- strategic merge patches, on a Deployment

CONTAINERS = [
    {
        "name": "web",
        "image": "registry.invalid/web:1",
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
    },
    {"name": "side", "image": "registry.invalid/side:1", "ports": [{"containerPort": 80}]},
]


def make_deployment() -> Obj:
    template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": CONTAINERS}}
    return {
        "metadata": {"name": "d"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": template},
    }


def under_pod(patch: Obj) -> Obj:
    return {"spec": {"template": {"spec": patch}}}


def images(pod: Obj) -> Obj:
    return {found["name"]: found["image"].rpartition("/")[2] for found in pod["containers"]}


def variables(pod: Obj) -> Obj:
    return {found["name"]: found.get("value") for found in pod["containers"][0].get("env", [])}


STRATEGIC: dict[str, tuple[Obj, Any, Any]] = {
    "an item is changed by its key": (
        {"containers": [{"name": "side", "image": "registry.invalid/side:2"}]},
        images,
        {"web": "web:1", "side": "side:2"},
    ),
    "an item is added": (
        {"containers": [{"name": "new", "image": "registry.invalid/new:1"}]},
        images,
        {"new": "new:1", "web": "web:1", "side": "side:1"},
    ),
    "an item is deleted": ({"containers": [{"name": "side", "$patch": "delete"}]}, images, {"web": "web:1"}),
    "a list is replaced": (
        {"containers": [{"name": "only", "image": "registry.invalid/only:1"}, {"$patch": "replace"}]},
        images,
        {"only": "only:1"},
    ),
    "a list inside an item merges too": (
        {"containers": [{"name": "web", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]}]},
        variables,
        {"A": "1", "B": "3", "C": "4"},
    ),
    "null removes a field": ({"containers": [{"name": "web", "env": None}]}, variables, {}),
    "the wanted order is kept": (
        {"$setElementOrder/containers": [{"name": "side"}, {"name": "web"}], "containers": []},
        lambda pod: [found["name"] for found in pod["containers"]],
        ["side", "web"],
    ),
}


@pytest.mark.parametrize("row", STRATEGIC.values(), ids=STRATEGIC.keys())
def test_a_strategic_patch_merges_lists_by_key(api: "Api", namespace: str, row: Any) -> None:
    patch, look, expected = row
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    assert api.call("POST", path, make_deployment()).status == 201
    reply = api.call("PATCH", f"{path}/d", under_pod(patch), content="strategic")
    assert reply.status == 200, reply.body
    assert look(reply.body["spec"]["template"]["spec"]) == expected


def test_retained_keys_drop_the_others(api: "Api", namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    api.call("POST", path, make_deployment())
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert api.call("PATCH", f"{path}/d", patch, content="strategic").body["spec"]["strategy"] == {"type": "Recreate"}


# -- server-side apply


def apply(store: "Widgets", spec: Obj, manager: str, *, force: bool = False, **more: Any) -> "Reply":
    query = {"fieldManager": manager, **({"force": "true"} if force else {})}
    return store.patch("w", {**store.build("w", spec), **more}, "apply", **query)


def owners(obj: Obj) -> set[tuple[str, str]]:
    return {(entry["manager"], entry["operation"]) for entry in obj["metadata"]["managedFields"]}


def test_applying_creates_and_then_changes(store: "Widgets") -> None:
    created = apply(store, {"model": "a", "size": 5}, "one")
    assert (created.status, owners(created.body)) == (201, {("one", "Apply")})
    changed = apply(store, {"model": "a", "size": 6}, "one")
    assert (changed.status, changed.body["spec"]["size"]) == (200, 6)


def test_applying_the_same_again_changes_nothing(store: "Widgets") -> None:
    # As with other writes (test_stored_objects.py), the first after the creation may be stored.
    versions = [
        apply(store, {"model": "a", "parts": [{"name": "p"}]}, "one").body["metadata"]["resourceVersion"]
        for _ in range(3)
    ]
    assert versions[2] == versions[1]


def test_an_apply_that_names_a_uid_changes_that_object_alone(store: "Widgets") -> None:
    def send(uid: str, size: int) -> "Reply":
        body = store.build("w", {"model": "a", "size": size})
        body["metadata"]["uid"] = uid
        return store.patch("w", body, "apply", fieldManager="one", force="true")

    nobody = send("0f8c2a52-8b40-4d4f-9c7c-0c5f0f4f8a11", 5)
    assert (nobody.status, nobody.body["reason"]) == (409, "Conflict")
    made = apply(store, {"model": "a", "size": 4}, "one").body
    assert send(made["metadata"]["uid"], 5).body["spec"]["size"] == 5
    # As a conflict or as a change of a field that is immutable.
    assert send("0f8c2a52-8b40-4d4f-9c7c-0c5f0f4f8a11", 6).status in {409, 422}
    assert store.get("w")["spec"]["size"] == 5


def test_a_dry_run_of_an_empty_merge_is_a_look(store: "Widgets") -> None:
    assert store.patch("w", {}, dryRun="All").status == 404
    made = store.create("w", {"model": "a"})
    reply = store.patch("w", {}, dryRun="All")
    assert (reply.status, reply.body["metadata"]["uid"]) == (200, made["metadata"]["uid"])
    assert store.get("w")["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_what_an_applier_names_no_more_is_removed(store: "Widgets") -> None:
    apply(store, {"model": "a", "color": "red", "size": 5, "limits": {"x": 1, "y": 2}}, "one")
    spec = apply(store, {"model": "a", "limits": {"x": 1}}, "one").body["spec"]
    assert "color" not in spec
    assert spec["limits"] == {"x": 1}
    assert spec["size"] == 3, "back to its default"


def test_what_two_appliers_name_stays_until_both_let_go(store: "Widgets") -> None:
    apply(store, {"model": "a", "color": "red"}, "one")
    apply(store, {"model": "a", "color": "red"}, "two")
    assert apply(store, {"model": "a"}, "one").body["spec"]["color"] == "red"
    assert "color" not in apply(store, {"model": "a"}, "two").body["spec"]


def test_two_appliers_share_an_object(store: "Widgets") -> None:
    apply(store, {"model": "a", "parts": [{"name": "p", "left": "l"}], "tags": ["x"], "limits": {"x": 1}}, "one")
    body = store.build("w", {"parts": [{"name": "q"}], "tags": ["y"], "limits": {"y": 2}})
    spec = store.patch("w", body, "apply", fieldManager="two").body["spec"]
    assert [part["name"] for part in spec["parts"]] == ["p", "q"]
    assert (spec["tags"], spec["limits"]) == (["x", "y"], {"x": 1, "y": 2})
    left = apply(store, {"model": "a"}, "one").body["spec"]
    assert [part["name"] for part in left["parts"]] == ["q"]
    assert (left["tags"], left["limits"]) == (["y"], {"y": 2})


def test_a_field_that_another_applier_set_differently_is_a_conflict(store: "Widgets") -> None:
    apply(store, {"model": "a", "size": 5, "color": "red"}, "one")
    reply = apply(store, {"model": "a", "size": 6}, "two")
    assert (reply.status, reply.body["reason"]) == (409, "Conflict")
    assert reply.causes == [(".spec.size", "FieldManagerConflict")]
    assert reply.message == 'Apply failed with 1 conflict: conflict with "one": .spec.size'
    assert store.get("w")["spec"]["size"] == 5


def test_force_takes_the_field_over(store: "Widgets") -> None:
    apply(store, {"model": "a", "size": 5}, "one")
    assert apply(store, {"model": "a", "size": 6}, "two", force=True).body["spec"]["size"] == 6
    assert apply(store, {"model": "a", "size": 5}, "one").causes == [(".spec.size", "FieldManagerConflict")]


def test_a_field_that_was_updated_by_hand_is_a_conflict_too(store: "Widgets") -> None:
    apply(store, {"model": "a", "size": 5}, "one")
    updated = store.patch("w", {"spec": {"size": 7}}, fieldManager="hand").body
    assert owners(updated) == {("one", "Apply"), ("hand", "Update")}
    reply = apply(store, {"model": "a", "size": 5}, "one")
    assert reply.status == 409
    assert 'conflict with "hand" using conformance.example.com/v1' in reply.message


def test_an_update_to_the_same_value_takes_nothing_away(store: "Widgets") -> None:
    apply(store, {"model": "a", "size": 5}, "one")
    store.patch("w", {"spec": {"size": 5}}, fieldManager="hand")
    assert apply(store, {"model": "a", "size": 6}, "one").status == 200


def test_the_status_is_applied_through_its_subresource(store: "Widgets") -> None:
    apply(store, {"model": "a"}, "one")
    body = {**store.build("w"), "status": {"phase": "Busy", "conditions": [{"type": "Ready", "status": "False"}]}}
    del body["spec"]
    reply = store.patch("w", body, "apply", subresource="status", fieldManager="controller")
    assert (reply.status, reply.body["status"]["phase"], reply.body["spec"]["model"]) == (200, "Busy", "a")
    entries = {entry["manager"]: entry.get("subresource") for entry in reply.body["metadata"]["managedFields"]}
    assert entries == {"one": None, "controller": "status"}


@pytest.mark.parametrize(
    ("query", "change", "status"),
    [({}, {}, 422), ({"fieldManager": "one"}, {"managedFields": [{"manager": "x"}]}, 400)],
    ids=["no field manager", "managed fields sent along"],
)
def test_an_apply_is_refused(store: "Widgets", query: Obj, change: Obj, status: int) -> None:
    body = store.build("w", **change)
    assert store.patch("w", body, "apply", **query).status == status


def test_labels_are_owned_one_by_one(store: "Widgets") -> None:
    one = store.build("w", labels={"a": "1"})
    store.patch("w", one, "apply", fieldManager="one")
    two = store.build("w", {"model": "a"}, labels={"b": "2"})
    labels = store.patch("w", two, "apply", fieldManager="two").body["metadata"]["labels"]
    assert labels == {"a": "1", "b": "2"}
    bare = store.build("w")
    assert store.patch("w", bare, "apply", fieldManager="one").body["metadata"]["labels"] == {"b": "2"}


def test_containers_ports_and_variables_of_a_built_in_kind_have_owners(api: "Api", namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/d"
    about = {"apiVersion": "apps/v1", "kind": "Deployment"}
    assert api.call("PATCH", path, {**about, **make_deployment()}, content="apply", fieldManager="one").status == 201
    body = {**about, "metadata": {"name": "d"}} | under_pod(
        {"containers": [{"name": "web", "env": [{"name": "C", "value": "9"}]}]}
    )
    pod = api.call("PATCH", path, body, content="apply", fieldManager="two").body["spec"]["template"]["spec"]
    assert variables(pod) == {"A": "1", "B": "2", "C": "9"}
    clash = {**about, "metadata": {"name": "d"}} | under_pod(
        {"containers": [{"name": "web", "image": "registry.invalid/web:2"}]}
    )
    reply = api.call("PATCH", path, clash, content="apply", fieldManager="two")
    assert reply.causes == [('.spec.template.spec.containers[name="web"].image', "FieldManagerConflict")]


def test_a_strict_patch_of_an_owned_object_finds_nothing_unknown(store: "Widgets") -> None:
    store.create("w", {"model": "a"})
    store.patch("w", {"status": {"phase": "Busy"}}, subresource="status")
    reply = store.patch("w", {"spec": {"size": 5}}, fieldValidation="Strict")
    assert (reply.status, reply.warnings) == (200, [])
    refused = store.patch("w", {"spec": {"odd": 5}}, fieldValidation="Strict")
    assert (refused.status, 'strict decoding error: unknown field "spec.odd"' in refused.message) == (422, True)


def test_the_owners_can_be_rewritten_and_forgotten(store: "Widgets") -> None:
    entries = store.create("w", {"model": "a", "size": 5})["metadata"]["managedFields"]
    entries[0] |= {"manager": "heir", "operation": "Apply"}
    rewritten = store.patch("w", {"metadata": {"managedFields": entries}}).body
    assert ("heir", "Apply") in owners(rewritten)
    forgotten = store.patch("w", {"metadata": {"managedFields": [{}]}}).body
    assert "managedFields" not in forgotten["metadata"]
