"""What a CRD's schema does to an object: defaults, pruning, validation, rules; and what the two subresources do."""

import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.conftest import Api, Widgets

Obj = dict[str, Any]

# -- defaults and pruning


def test_defaults_are_filled_in_at_every_level_that_is_there(store: "Widgets") -> None:
    spec = store.create("one", {"model": "a", "parts": [{"name": "p"}]})["spec"]
    assert (spec["size"], spec["replicas"], spec["nested"]) == (3, 1, {"depth": 7})
    assert spec["parts"] == [{"name": "p", "count": 1}]


def test_null_takes_the_default_and_a_nullable_field_keeps_it(store: "Widgets") -> None:
    spec = store.create("one", {"model": "a", "size": None, "maybe": None, "color": None})["spec"]
    assert spec["size"] == 3
    assert spec["maybe"] is None
    assert "color" not in spec


def test_unknown_fields_are_removed_except_where_they_are_kept(store: "Widgets") -> None:
    spec = store.create("one", {"model": "a", "odd": 1, "nested": {"odd": 1}, "free": {"odd": {"x": [1]}}})["spec"]
    assert "odd" not in spec
    assert spec["nested"] == {"depth": 7}
    assert spec["free"] == {"odd": {"x": [1]}}


def test_an_unknown_field_is_a_warning_unless_it_is_strict(store: "Widgets", api: "Api") -> None:
    body = store.build("one", {"model": "a", "odd": 1, "parts": [{"name": "p", "odd": 1}]})
    warned = api.call("POST", store.path(), body, dryRun="All", fieldValidation="Warn")
    assert set(warned.warnings) == {
        r'299 - "unknown field \"spec.odd\""',
        r'299 - "unknown field \"spec.parts[0].odd\""',
    }
    assert api.call("POST", store.path(), body, dryRun="All", fieldValidation="Ignore").warnings == []
    assert len(api.call("POST", store.path(), body, dryRun="All").warnings) == 2, "Warn is the default"
    strict = api.call("POST", store.path(), body, dryRun="All", fieldValidation="Strict")
    assert (strict.status, strict.body["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.odd"' in strict.message


def test_built_in_kinds_are_strict_when_asked_to(api: "Api", namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    body = {"metadata": {"name": "one"}, "odd": 1}
    strict = api.call("POST", path, body, fieldValidation="Strict")
    assert (strict.status, 'unknown field "odd"' in strict.message) == (400, True)
    warned = api.call("POST", path, body)
    assert (warned.status, warned.warnings) == (201, [r'299 - "unknown field \"odd\""'])


# -- validation


def test_what_may_be_a_number_or_a_string_stays_what_it_is(store: "Widgets") -> None:
    assert store.create("one", {"model": "a", "room": 2})["spec"]["room"] == 2
    assert store.create("two", {"model": "a", "room": "2Gi"})["spec"]["room"] == "2Gi"
    assert store.create("three", {"model": "a", "share": 2})["spec"]["share"] == 2
    assert store.create("four", {"model": "a", "share": "2%"})["spec"]["share"] == "2%"


WRONG: dict[str, tuple[Obj, list[tuple[str, str]], str]] = {
    "a required field is missing": (
        *({"size": 1}, [("spec.model", "FieldValueRequired")]),
        'Widget.conformance.example.com "w" is invalid: [spec.model: Required value, <nil>: Invalid value: ',
    ),
    "a string for a number": (
        *({"model": "a", "size": "big"}, [("spec.size", "FieldValueTypeInvalid")]),
        'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"',
    ),
    "a number for a string": (
        *({"model": 5}, [("spec.model", "FieldValueTypeInvalid")]),
        'spec.model: Invalid value: "integer": spec.model in body must be of type string: "integer"',
    ),
    "a quantity of another form": (
        *({"model": "a", "room": "2GB"}, [("spec.room", "FieldValueInvalid")]),
        'spec.room: Invalid value: "2GB": spec.room in body should match',
    ),
    "a quantity below nothing": (
        *({"model": "a", "room": -1}, [("spec.room", "FieldValueInvalid")]),
        "spec.room in body should be greater than or equal to 0",
    ),
    "a number that a rule for numbers and texts refuses": (
        *({"model": "a", "share": -1}, [("spec.share", "FieldValueInvalid")]),
        "spec.share: Invalid value: -1: write 5 or 5%",
    ),
    "a text that a rule for numbers and texts refuses": (
        *({"model": "a", "share": "5 %"}, [("spec.share", "FieldValueInvalid")]),
        'spec.share: Invalid value: "5 %": write 5 or 5%',
    ),
    "a fraction for an integer": (
        {"model": "a", "size": 1.5},
        [("spec.size", "FieldValueTypeInvalid")],
        "of type integer",
    ),
    "a list for an object": (
        {"model": "a", "nested": []},
        [("spec.nested", "FieldValueTypeInvalid")],
        "of type object",
    ),
    "below the minimum": (
        *({"model": "a", "size": 0}, [("spec.size", "FieldValueInvalid")]),
        "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
    ),
    "above the maximum": (
        *({"model": "a", "size": 11}, [("spec.size", "FieldValueInvalid")]),
        "spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10",
    ),
    "at an exclusive minimum": (
        {"model": "a", "rate": 0},
        [("spec.rate", "FieldValueInvalid")],
        "should be greater than 0",
    ),
    "not in the enumeration": (
        *({"model": "a", "color": "blue"}, [("spec.color", "FieldValueNotSupported")]),
        'spec.color: Unsupported value: "blue": supported values: "red", "green"',
    ),
    "not of the pattern": (
        *({"model": "a", "code": "A1"}, [("spec.code", "FieldValueInvalid")]),
        "spec.code in body should match '^[a-z]+$'",
    ),
    "too short": (
        *({"model": "a", "code": "x"}, [("spec.code", "FieldValueInvalid")]),
        "spec.code in body should be at least 2 chars long",
    ),
    "too long": ({"model": "a" * 21}, [("spec.model", "FieldValueTooLong")], "spec.model: Too long"),
    "too many items": (
        *({"model": "a", "files": ["1", "2", "3"]}, [("spec.files", "FieldValueTooMany")]),
        "spec.files: Too many: 3: must have at most 2 items",
    ),
    "too many properties": (
        *({"model": "a", "limits": dict.fromkeys("abcd", 1)}, [("spec.limits", "FieldValueTooMany")]),
        "must have at most 3 items",
    ),
    "a wrong value in a map": (
        {"model": "a", "limits": {"x": "y"}},
        [("spec.limits.x", "FieldValueTypeInvalid")],
        "integer",
    ),
    "not a time": ({"model": "a", "when": "noon"}, [("spec.when", "FieldValueTypeInvalid")], "date-time"),
    "neither integer nor string": ({"model": "a", "port": True}, [("spec.port", "FieldValueTypeInvalid")], "spec.port"),
    "an item twice in a set": (
        *({"model": "a", "tags": ["x", "y", "x"]}, [("spec.tags[2]", "FieldValueDuplicate")]),
        'spec.tags[2]: Duplicate value: "x"',
    ),
    "a key twice in a list-map": (
        *({"model": "a", "parts": [{"name": "p"}, {"name": "p"}]}, [("spec.parts[1]", "FieldValueDuplicate")]),
        'spec.parts[1]: Duplicate value: {"name":"p"}',
    ),
    "a list-map item without its key": (
        *({"model": "a", "parts": [{"left": "l"}]}, [("spec.parts[0].name", "FieldValueRequired")]),
        "spec.parts[0].name: Required value",
    ),
}


LEFT_TO_RULES = {"FieldValueInvalid", "FieldValueDuplicate"}
"""With these, rules are looked at all the same."""


@pytest.mark.parametrize("row", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_is_refused_with_its_field(store: "Widgets", api: "Api", row: Any) -> None:
    spec, causes, text = row
    reply = api.call("POST", store.path(), store.build("w", spec))
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    assert reply.causes == causes
    assert text in reply.message
    assert reply.is_unchecked == any(reason not in LEFT_TO_RULES for _, reason in causes)


@pytest.mark.parametrize("source", [{}, {"url": "u", "path": "p"}], ids=["none of them", "both of them"])
def test_exactly_one_of_the_alternatives_is_wanted(store: "Widgets", api: "Api", source: Obj) -> None:
    reply = api.call("POST", store.path(), store.build("w", {"model": "a", "source": source}))
    assert reply.status == 422
    assert "must validate one and only one schema (oneOf)" in reply.message


RIGHT: dict[str, Obj] = {
    "an integer port": {"model": "a", "port": 80},
    "a named port": {"model": "a", "port": "http"},
    "a whole number where fractions are allowed": {"model": "a", "rate": 1},
    "a time with an offset": {"model": "a", "when": "2026-02-03T04:05:06+02:00"},
    "one of the alternatives": {"model": "a", "source": {"url": "u"}},
    "an empty list": {"model": "a", "parts": [], "tags": []},
}


@pytest.mark.parametrize("spec", RIGHT.values(), ids=RIGHT.keys())
def test_a_right_value_is_taken_as_it_is(store: "Widgets", api: "Api", spec: Obj) -> None:
    stored = store.create("w", spec)["spec"]
    assert {key: stored[key] for key in spec} == spec


# -- rules (CEL)


def test_a_rule_over_two_fields_names_the_field_and_says_its_sentence(store: "Widgets", api: "Api") -> None:
    reply = api.call("POST", store.path(), store.build("w", {"model": "a", "low": 5, "high": 1}))
    assert (reply.status, reply.causes) == (422, [("spec.low", "FieldValueInvalid")])
    assert "low must not be above high" in reply.message


def test_a_rule_is_told_along_with_a_wrong_value_that_leaves_its_type_alone(store: "Widgets", api: "Api") -> None:
    reply = api.call("POST", store.path(), store.build("w", {"model": "a", "code": "A1", "low": 5, "high": 1}))
    assert reply.causes == [("spec.code", "FieldValueInvalid"), ("spec.low", "FieldValueInvalid")]
    assert not reply.is_unchecked


def test_a_rule_sees_the_name(store: "Widgets", api: "Api") -> None:
    reply = api.call("POST", store.path(), store.build("w" * 41))
    assert (reply.status, "a widget's name has at most 40 characters" in reply.message) == (422, True)


def test_a_rule_of_a_list_item_names_the_item(store: "Widgets", api: "Api") -> None:
    parts = [{"name": "p"}, {"name": "q", "left": "l", "right": "r"}]
    reply = api.call("POST", store.path(), store.build("w", {"model": "a", "parts": parts}))
    assert reply.causes == [("spec.parts[1]", "FieldValueInvalid")]
    assert "part q has two sides" in reply.message


TRANSITIONS: dict[str, tuple[Obj, str | None]] = {
    "an immutable field changes": ({"model": "b"}, "model is immutable"),
    "an immutable field stays": ({"model": "a", "size": 5}, None),
    "an optional immutable field appears": ({"pinned": "x"}, "pinned can neither be added nor removed"),
}


@pytest.mark.parametrize("row", TRANSITIONS.values(), ids=TRANSITIONS.keys())
def test_a_transition_rule_compares_with_what_was(store: "Widgets", row: Any) -> None:
    spec, text = row
    store.create("w", {"model": "a"})
    reply = store.patch("w", {"spec": spec})
    assert reply.status == (422 if text else 200)
    assert text is None or text in reply.message


# -- the status and scale subresources


NEVER_SEEN = {"observedGeneration": -1}
"""The default of a Widget's status."""


def test_a_write_to_the_object_leaves_its_status_alone(store: "Widgets", api: "Api") -> None:
    body = {**store.build("w"), "status": {"phase": "Claimed"}}
    created = api.call("POST", store.path(), body).body
    assert created["status"] == NEVER_SEEN
    store.patch("w", {"status": {"phase": "Real"}}, subresource="status")
    body = store.patch("w", {"spec": {"size": 4}, "status": {"phase": "Claimed"}}).body
    assert body["status"] == {**NEVER_SEEN, "phase": "Real"}


def test_a_default_of_the_status_is_there_from_the_first_moment_on(store: "Widgets", api: "Api") -> None:
    store.create("w")
    (listed,) = api.call("GET", store.path()).body["items"]
    assert (store.get("w")["status"], listed["status"]) == (NEVER_SEEN, NEVER_SEEN)


def test_a_write_to_the_status_leaves_the_rest_alone(store: "Widgets") -> None:
    store.create("w")
    patch = {"spec": {"size": 9}, "metadata": {"labels": {"a": "b"}}, "status": {"phase": "Real"}}
    body = store.patch("w", patch, subresource="status").body
    assert (body["spec"]["size"], body["status"]) == (3, {**NEVER_SEEN, "phase": "Real"})
    assert "labels" not in body["metadata"]


def test_the_status_is_validated_too(store: "Widgets") -> None:
    store.create("w")
    reply = store.patch("w", {"status": {"phase": 5}}, subresource="status")
    assert (reply.status, reply.causes) == (422, [("status.phase", "FieldValueTypeInvalid")])


def test_the_status_is_replaced_under_the_objects_version(store: "Widgets", api: "Api") -> None:
    stale = store.create("w")
    store.patch("w", {"spec": {"size": 4}})
    body = {**stale, "status": {"phase": "Late"}}
    assert api.call("PUT", store.path("w", "status"), body).status == 409
    fresh = {**store.get("w"), "status": {"phase": "Fresh"}}
    assert api.call("PUT", store.path("w", "status"), fresh).body["status"] == {"phase": "Fresh"}


def test_a_scale_shows_and_sets_the_replicas(store: "Widgets", api: "Api") -> None:
    store.create("w", {"model": "a", "replicas": 2})
    store.patch("w", {"status": {"replicas": 1, "selector": "app=w"}}, subresource="status")
    scale = api.call("GET", store.path("w", "scale")).body
    assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 2})
    assert scale["status"] == {"replicas": 1, "selector": "app=w"}
    scale["spec"]["replicas"] = 5
    assert api.call("PUT", store.path("w", "scale"), scale).body["spec"] == {"replicas": 5}
    assert store.get("w")["spec"]["replicas"] == 5
    assert store.patch("w", {"spec": {"replicas": 3}}, subresource="scale").body["spec"] == {"replicas": 3}


def test_the_scale_of_a_deployment_is_the_same_thing(api: "Api", namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    template = {
        "metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "c", "image": "registry.invalid/x:1"}]},
    }
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": template}
    assert api.call("POST", path, {"metadata": {"name": "d"}, "spec": spec}).status == 201
    scale = api.call("GET", f"{path}/d/scale").body
    assert scale["status"]["selector"] == "app=d"
    api.call("PATCH", f"{path}/d/scale", {"spec": {"replicas": 1}}, content="merge")
    assert api.call("GET", f"{path}/d").body["spec"]["replicas"] == 1


# -- definitions

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def make_definition(schema: Obj, **version: Any) -> Obj:
    served = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}
    names = {"plural": "trials", "singular": "trial", "kind": "Trial"}
    spec = {"group": "trial.example.com", "scope": "Namespaced", "names": names, "versions": [served]}
    about = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**about, "metadata": {"name": "trials.trial.example.com"}, "spec": spec}


def under_spec(schema: Obj) -> Obj:
    return {"type": "object", "properties": {"spec": schema}}


WRONG_DEFINITIONS: dict[str, tuple[Obj, str]] = {
    "a name that is not plural.group": (
        {**make_definition({"type": "object"}), "metadata": {"name": "trials.example.com"}},
        "metadata.name",
    ),
    "no version that is stored": (make_definition({"type": "object"}, storage=False), "spec.versions"),
    "a field without a type": (make_definition(under_spec({"description": "x"})), "type: Required value"),
    "a root that is no object": (make_definition({"type": "string"}), "type: Invalid value"),
    "a rule that can't be compiled": (
        make_definition(
            under_spec({"type": "object", "x-kubernetes-validations": [{"rule": "self.x ==", "message": "m"}]})
        ),
        "x-kubernetes-validations[0].rule: Invalid value",
    ),
    "a default of the wrong type": (
        make_definition(under_spec({"type": "object", "properties": {"n": {"type": "integer", "default": "x"}}})),
        "default: Invalid value",
    ),
    "a list-map without keys": (
        make_definition(under_spec({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"})),
        "x-kubernetes-list-map-keys",
    ),
}


@pytest.mark.parametrize("row", WRONG_DEFINITIONS.values(), ids=WRONG_DEFINITIONS.keys())
def test_a_definition_that_is_not_structural_is_refused(api: "Api", row: Any) -> None:
    body, text = row
    reply = api.call("POST", DEFINITIONS, body, dryRun="All")
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    assert text in reply.message


def test_an_established_definition_says_so(api: "Api") -> None:
    status = api.call("GET", f"{DEFINITIONS}/widgets.conformance.example.com").body["status"]
    conditions = {found["type"]: found["status"] for found in status["conditions"]}
    assert (conditions["NamesAccepted"], conditions["Established"]) == ("True", "True")
    assert (status["acceptedNames"]["kind"], status["storedVersions"]) == ("Widget", ["v1"])


def test_a_definition_ends_when_the_last_of_its_objects_has_gone(api: "Api", namespace: str) -> None:
    definition = make_definition(under_spec({"type": "object"}))
    definition["spec"] |= {"group": "ending.example.com"}
    definition["metadata"]["name"] = "trials.ending.example.com"
    assert api.call("POST", DEFINITIONS, definition).status == 201
    deadline = time.monotonic() + 30

    def wait_for(path: str, *statuses: int) -> Obj:
        while (reply := api.call("GET", path)).status not in statuses:
            assert time.monotonic() < deadline, reply
            time.sleep(0.05)
        return reply.body if isinstance(reply.body, dict) else {}

    path = f"/apis/ending.example.com/v1/namespaces/{namespace}/trials"
    wait_for(path, 200)
    held: Obj = {"apiVersion": "ending.example.com/v1", "kind": "Trial"}
    held["metadata"] = {"name": "one", "finalizers": ["example.com/hold"]}
    assert api.call("POST", path, held).status == 201
    api.call("DELETE", f"{DEFINITIONS}/trials.ending.example.com")
    while "deletionTimestamp" not in wait_for(f"{path}/one", 200)["metadata"]:
        assert time.monotonic() < deadline
    assert wait_for(f"{DEFINITIONS}/trials.ending.example.com", 200)["metadata"]["deletionTimestamp"]
    api.call("PATCH", f"{path}/one", {"metadata": {"finalizers": None}}, content="merge")
    wait_for(f"{DEFINITIONS}/trials.ending.example.com", 404)
    wait_for(path, 404)
