"""A rule that became stricter: what an update leaves as it was is held against it no more, what it changes is."""

from typing import Any

import pytest
from codetune_local.apiserver.objects.celrules import MISSING, check_rules

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
