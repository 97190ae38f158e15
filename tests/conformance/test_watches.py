"""Lists and watches: the order of events, where a watch begins, bookmarks, selections."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.conftest import Api, Widgets

Obj = dict[str, Any]
INITIAL_END = "k8s.io/initial-events-end"


def told(events: Iterator[Obj], count: int) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in islice(events, count)]


def test_a_watch_from_a_list_tells_every_later_change_once_and_in_order(store: "Widgets", api: "Api") -> None:
    store.create("before")
    version = api.call("GET", store.path()).body["metadata"]["resourceVersion"]
    store.create("a")
    store.patch("a", {"spec": {"size": 5}})
    store.patch("a", {"status": {"phase": "Busy"}}, subresource="status")
    api.call("DELETE", store.path("a"))
    events = list(islice(api.follow(store.path(), resourceVersion=version, timeoutSeconds=10), 4))
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    assert events[1]["object"]["spec"]["size"] == 5
    assert events[0]["object"]["status"] == {"observedGeneration": -1}
    assert events[3]["object"]["status"] == {"observedGeneration": -1, "phase": "Busy"}


def test_a_watch_without_a_version_begins_with_what_is_there(store: "Widgets", api: "Api") -> None:
    store.create("a")
    store.create("b")
    events = api.follow(store.path(), timeoutSeconds=10)
    assert set(told(events, 2)) == {("ADDED", "a"), ("ADDED", "b")}
    store.create("c")
    assert told(events, 1) == [("ADDED", "c")]


def test_a_watch_ends_by_itself_when_its_time_is_over(store: "Widgets", api: "Api") -> None:
    store.create("a")
    assert told(api.follow(store.path(), timeoutSeconds=1), 5) == [("ADDED", "a")]


def test_a_streaming_list_marks_its_end(store: "Widgets", api: "Api") -> None:
    store.create("a")
    query = {"sendInitialEvents": "true", "allowWatchBookmarks": "true", "resourceVersionMatch": "NotOlderThan"}
    events = list(islice(api.follow(store.path(), timeoutSeconds=10, **query), 2))
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]
    metadata = events[1]["object"]["metadata"]
    assert metadata["annotations"][INITIAL_END] == "true"
    assert int(metadata["resourceVersion"]) >= int(events[0]["object"]["metadata"]["resourceVersion"])


def test_a_streaming_list_needs_to_say_how_old_it_may_be(store: "Widgets", api: "Api") -> None:
    reply = api.call("GET", store.path(), watch="true", sendInitialEvents="true", allowWatchBookmarks="true")
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")


@pytest.mark.parametrize("selector", ["labelSelector", "fieldSelector"])
def test_a_selection_is_watched(store: "Widgets", api: "Api", selector: str) -> None:
    query = {"labelSelector": "tier=web"} if selector == "labelSelector" else {"fieldSelector": "metadata.name=a"}
    events = api.follow(store.path(), timeoutSeconds=10, **query)
    store.create("b", labels={"tier": "db"})
    store.create("a", labels={"tier": "web"})
    assert told(events, 1) == [("ADDED", "a")]


def test_what_leaves_a_selection_is_deleted_for_its_watch_and_what_enters_is_added(
    store: "Widgets", api: "Api"
) -> None:
    version = store.create("a", labels={"tier": "web"})["metadata"]["resourceVersion"]
    events = api.follow(store.path(), resourceVersion=version, labelSelector="tier=web", timeoutSeconds=10)
    store.patch("a", {"metadata": {"labels": {"tier": "db"}}})
    store.patch("a", {"metadata": {"labels": {"tier": "web"}}})
    assert told(events, 2) == [("DELETED", "a"), ("ADDED", "a")]


def test_one_namespace_is_watched_without_the_others(store: "Widgets", api: "Api") -> None:
    version = api.call("GET", store.path()).body["metadata"]["resourceVersion"]
    api.call(
        "POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"generateName": "elsewhere-"}}, dryRun="All"
    )
    store.create("here")
    assert told(api.follow(store.path(), resourceVersion=version, timeoutSeconds=10), 1) == [("ADDED", "here")]


def test_a_watch_of_all_namespaces_sees_each(store: "Widgets", api: "Api") -> None:
    version = api.call("GET", store.path()).body["metadata"]["resourceVersion"]
    store.create("seen")
    events = api.follow("/apis/conformance.example.com/v1/widgets", resourceVersion=version, timeoutSeconds=10)
    assert told(events, 1) == [("ADDED", "seen")]


def test_a_version_that_was_never_there_is_too_large(store: "Widgets", api: "Api") -> None:
    now = int(api.call("GET", store.path()).body["metadata"]["resourceVersion"])
    reply = api.call("GET", store.path(), resourceVersion=now + 10**9, resourceVersionMatch="NotOlderThan")
    assert (reply.status, reply.body["reason"]) == (504, "Timeout")
    assert "Too large resource version" in reply.message


@pytest.mark.parametrize("version", ["abc", "-1"])
def test_a_version_that_is_no_number_is_refused(store: "Widgets", api: "Api", version: str) -> None:
    assert api.call("GET", store.path(), watch="true", resourceVersion=version, timeoutSeconds=5).status >= 400


def test_events_can_be_metadata_only(store: "Widgets", api: "Api") -> None:
    store.create("a")
    accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    (event,) = islice(api.follow(store.path(), accept=accept, timeoutSeconds=10), 1)
    assert (event["object"]["kind"], event["object"]["metadata"]["name"]) == ("PartialObjectMetadata", "a")
    assert "spec" not in event["object"]


def test_events_can_be_table_rows(store: "Widgets", api: "Api") -> None:
    store.create("a")
    accept = "application/json;as=Table;g=meta.k8s.io;v=v1"
    (event,) = islice(api.follow(store.path(), accept=accept, timeoutSeconds=10), 1)
    assert event["object"]["kind"] == "Table"
    assert event["object"]["rows"][0]["cells"][0] == "a"
