"""Garbage collection: what follows for an object from the state of its owners."""

from typing import Any

import pytest
from codetune_local.controllers.garbage_graph import Node, OwnerGraph, Verdict, judge

Obj = dict[str, Any]


def owned(*owners: str, finalizers: tuple[str, ...] = (), deleting: bool = False, blocking: bool = True) -> Node:
    references = tuple({"uid": uid, "blockOwnerDeletion": blocking} for uid in owners)
    return Node("me", "pods", "n", "me", references, deleting, finalizers)


@pytest.mark.parametrize(
    ("expected", "node", "states", "has_dependents"),
    [
        pytest.param(Verdict("keep"), owned(), {}, False, id="no owner"),
        pytest.param(Verdict("keep"), owned("a"), {"a": "solid"}, False, id="its owner is there"),
        pytest.param(Verdict("delete"), owned("a"), {"a": "dangling"}, False, id="its owner is gone"),
        pytest.param(Verdict("delete"), owned("a", "b"), {"a": "dangling", "b": "dangling"}, False, id="all are gone"),
        pytest.param(
            Verdict("trim", frozenset({"a"})), owned("a", "b"), {"a": "dangling", "b": "solid"}, False, id="one is left"
        ),
        pytest.param(
            Verdict("trim", frozenset({"a"})), owned("a", "b"), {"a": "waiting", "b": "solid"}, False, id="one waits"
        ),
        pytest.param(
            Verdict("delete", propagation="Foreground"),
            owned("a"),
            {"a": "waiting"},
            True,
            id="waiting, and owns something",
        ),
        pytest.param(Verdict("delete"), owned("a"), {"a": "waiting"}, False, id="waiting, and owns nothing"),
        pytest.param(
            Verdict("delete", propagation="Orphan"),
            owned("a", finalizers=("orphan",)),
            {"a": "dangling"},
            True,
            id="orphans",
        ),
        pytest.param(Verdict("keep"), owned("a", deleting=True), {"a": "dangling"}, False, id="it is going already"),
    ],
)
def test_an_object_follows_its_owners(expected: Verdict, node: Node, states: Any, has_dependents: bool) -> None:
    assert judge(node, lambda reference: states[reference["uid"]], has_dependents) == expected


def test_an_owner_waits_only_for_dependents_that_block_it() -> None:
    graph = OwnerGraph()
    graph.put(owned("boss"))
    graph.put(Node("other", "pods", "n", "other", ({"uid": "boss"},)))
    assert [node.uid for node in graph.dependents("boss")] == ["me", "other"]
    assert [node.uid for node in graph.blocking("boss")] == ["me"]


def test_the_graph_forgets_what_is_gone_and_what_changed_owners() -> None:
    graph = OwnerGraph()
    graph.put(owned("boss"))
    graph.put(owned("chief"))
    assert graph.dependents("boss") == []
    graph.remove("me")
    graph.remove("me")
    assert graph.dependents("chief") == []


def test_a_node_is_read_from_an_object() -> None:
    metadata = {
        "uid": "u",
        "namespace": "n",
        "name": "x",
        "deletionTimestamp": "t",
        "finalizers": ["foregroundDeletion"],
    }
    node = Node.of("pods", {"metadata": metadata})
    assert node == Node("u", "pods", "n", "x", (), True, ("foregroundDeletion",))
    assert node.waits_for_dependents
