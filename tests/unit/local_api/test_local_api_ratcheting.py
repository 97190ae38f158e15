"""A definition that became stricter: what an update leaves as it was is held against it no more, what it changes is.

By rules (`x-kubernetes-validations`) first, then by the rest of the schema.
"""

from typing import Any

import pytest
from codetune_local.apiserver.objects.celrules import check_rules
from codetune_local.apiserver.objects.correlating import MISSING
from codetune_local.apiserver.objects.structural import validate

Obj = dict[str, Any]
SMALL = {"rule": "self <= 10", "message": "at most 10"}
GROWING = {"rule": "self > oldSelf", "message": "it only grows"}
ORDERED = {"rule": "self.low <= self.high", "message": "low is not above high"}
SIZE = {"type": "integer", "x-kubernetes-validations": [SMALL]}
ITEM = {"type": "object", "properties": {"name": {"type": "string"}, "size": SIZE}}
SCHEMA: Obj = {
    "type": "object",
    "x-kubernetes-validations": [ORDERED],
    "properties": {
        "low": {"type": "integer"},
        "high": {"type": "integer"},
        "size": SIZE,
        "counter": {"type": "integer", "x-kubernetes-validations": [GROWING]},
        "named": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": ITEM,
        },
        "listed": {"type": "array", "items": ITEM},
    },
}
OLD: Obj = {
    "low": 9,
    "high": 1,
    "size": 99,
    "counter": 5,
    "named": [{"name": "a", "size": 99}],
    "listed": [{"size": 99}],
}

UPDATES: dict[str, tuple[list[str], Obj]] = {
    "nothing but a field without rules": (["low is not above high"], {"low": 8}),
    "nothing at all": ([], {}),
    "a wrong field to another wrong value": (["low is not above high", "at most 10"], {"size": 98}),
    "another field, with the rule of the whole kept": ([], {"low": 1, "high": 2}),
    "the rest of an item that is found by its key": (
        [],
        {"low": 1, "named": [{"name": "b", "size": 1}, {"name": "a", "size": 99}]},
    ),
    "an item that has no key": (["at most 10"], {"low": 1, "listed": [{"size": 99}, {"size": 1}]}),
}


def _complain(new: Obj, old: Any, *, is_update: bool) -> list[str]:
    found = check_rules(new, old, SCHEMA, is_update=is_update)
    return sorted(message.rpartition(": ")[2] for _, _, message in found if "only grows" not in message)


@pytest.mark.parametrize("row", UPDATES.values(), ids=UPDATES.keys())
def test_an_update_is_held_against_what_it_changes(row: tuple[list[str], Obj]) -> None:
    expected, change = row
    assert _complain({**OLD, **change}, OLD, is_update=True) == sorted(expected)


def test_a_new_object_is_held_against_everything() -> None:
    assert _complain(OLD, MISSING, is_update=False) == ["at most 10"] * 3 + ["low is not above high"]


def test_a_rule_about_change_is_looked_at_though_nothing_changed() -> None:
    ((where, _, message),) = check_rules(OLD, OLD, SCHEMA, is_update=True)
    assert (where, "it only grows" in message) == ("counter", True)


SHORT = {"type": "string", "maxLength": 2}
PART = {"type": "object", "properties": {"name": {"type": "string"}, "text": SHORT}}
STRICTER: Obj = {
    "type": "object",
    "required": ["needed"],
    "properties": {
        "needed": {"type": "string"},
        "text": SHORT,
        "word": {"type": "string", "enum": ["a"]},
        "number": {"type": "integer", "maximum": 1},
        "type": {"type": "string"},
        "other": {"type": "string"},
        "few": {"type": "array", "maxItems": 1, "items": SHORT},
        "any": {"type": "array", "items": SHORT},
        "once": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}},
        "named": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": PART,
        },
        "either": {"type": "object", "properties": {"or": {"oneOf": [SHORT]}}},
        "keyed": {"type": "object", "additionalProperties": SHORT},
    },
}
WRONG: Obj = {
    "text": "long",
    "word": "b",
    "number": 2,
    "type": 1,
    "few": ["long", "a"],
    "any": ["long"],
    "named": [{"name": "x", "text": "long"}],
    "keyed": {"x": "long"},
    "needed": "",
}
EVERYTHING = sorted(["text", "word", "number", "type", "few", "few[0]", "any[0]", "named[0].text", "keyed.x"])

CHANGES: dict[str, tuple[list[str], Obj]] = {
    "nothing": ([], {}),
    "another field": ([], {"other": "x"}),
    "a wrong value to another": (["text"], {"text": "longer"}),
    "a wrong word to another": (["word"], {"word": "c"}),
    "a list by an item": (["few", "few[0]"], {"few": ["long", "b"]}),
    "a list that was short enough for its items": (["any[0]"], {"any": ["long", "a"]}),
    "an item beside one that is found by its key": ([], {"named": [{"name": "y"}, {"name": "x", "text": "long"}]}),
    "a key beside another": (["keyed.y"], {"keyed": {"x": "long", "y": "long"}}),
}


def _find_wrong(new: Obj, old: Any) -> list[str]:
    return sorted(where for where, _, _ in validate(new, STRICTER, old=old))


@pytest.mark.parametrize("row", CHANGES.values(), ids=CHANGES.keys())
def test_values_that_an_update_leaves_may_be_wrong(row: tuple[list[str], Obj]) -> None:
    expected, change = row
    assert _find_wrong({**WRONG, **change}, WRONG) == sorted(expected)


def test_the_values_of_a_new_object_may_not() -> None:
    assert _find_wrong(WRONG, MISSING) == EVERYTHING


LASTING: dict[str, tuple[str, Obj]] = {
    "a field that has to be there": ("needed", {}),
    "a list that has become a set": ("once[1]", {"needed": "", "once": [1, 1]}),
    "what a junctor asks for": ("either.or", {"needed": "", "either": {"or": "long"}}),
}


@pytest.mark.parametrize("row", LASTING.values(), ids=LASTING.keys())
def test_some_things_have_to_be_mended_by_the_next_update(row: tuple[str, Obj]) -> None:
    where, unchanged = row
    assert _find_wrong(unchanged, unchanged) == [where]
