"""A run keeps the commit that its base model had when it was first fetched, whatever its branch moves to."""

from typing import TYPE_CHECKING

import pytest
from codetune_api.protocol import ModelEvent
from codetune_trainer.config import Places
from codetune_trainer.errors import InvalidParameters, ModelUnavailable
from standin_hub import COMMIT, Hub

if TYPE_CHECKING:
    from unit.fetch.conftest import Fetcher

LATER = "beef" * 10
PIN = "team/finetunes/f/uid/base-model.json"


def test_the_commit_is_said(hub: Hub, run: "Fetcher") -> None:
    run(pin=PIN)
    said = [event for event in run.events() if isinstance(event, ModelEvent)]
    assert said == [ModelEvent(repository="acme/coder", commit=COMMIT)]


def test_a_later_attempt_gets_the_same_commit(hub: Hub, run: "Fetcher") -> None:
    run(pin=PIN)
    hub.commit = LATER
    assert run(pin=PIN).name == COMMIT
    assert run().name == LATER


def test_a_later_attempt_needs_no_hub(hub: Hub, run: "Fetcher") -> None:
    run(pin=PIN)
    run.events()
    hub.fault = (503, "", "down")
    assert run(pin=PIN).name == COMMIT
    assert [event.commit for event in run.events() if isinstance(event, ModelEvent)] == [COMMIT]


def test_an_attempt_that_was_cut_settles_the_commit_too(hub: Hub, run: "Fetcher") -> None:
    hub.storage_fault = 500
    with pytest.raises(ModelUnavailable):
        run(pin=PIN)
    hub.storage_fault, hub.commit = 0, LATER
    assert run(pin=PIN).name == COMMIT


@pytest.mark.parametrize("content", ["", "{", '{"repository": "acme/other", "revision": "main", "commit": "c"}'])
def test_a_pin_that_is_none_is_made_anew(hub: Hub, run: "Fetcher", places: Places, content: str) -> None:
    path = places.store / PIN
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert run(pin=PIN).name == COMMIT
    hub.commit = LATER
    assert run(pin=PIN).name == COMMIT


def test_a_pin_of_another_revision_does_not_count(hub: Hub, run: "Fetcher") -> None:
    run(pin=PIN)
    hub.commit = LATER
    run()
    assert run(pin=PIN, revision=LATER).name == LATER


def test_a_pin_outside_the_store_is_refused(hub: Hub, run: "Fetcher") -> None:
    with pytest.raises(InvalidParameters, match="pin"):
        run(pin="../base-model.json")
