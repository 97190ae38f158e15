"""The work queue on a clock of its own: one look at a time for each resource, and when the next one comes."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from codetune_operator.errors import ConflictError, PermanentError, TemporaryError
from codetune_operator.handlers.keys import Key
from codetune_operator.handlers.queueing import CONCURRENCY, QueueCounts, WorkQueue

A, B = Key("Project", "ns", "a"), Key("Project", "ns", "b")


class Clock:
    """A loop's clock and timers, turned by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[..., None], tuple[Any, ...], Handle]] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", self.call_later)

    def call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> "Handle":
        handle = Handle(self.now + delay)
        self.timers.append((self.now + delay, callback, arguments, handle))
        return handle

    async def turn_to(self, moment: float) -> None:
        """Everything that is due until then happens."""
        while due := [timer for timer in self.timers if timer[0] <= moment]:
            first = min(due, key=lambda timer: timer[0])
            self.timers.remove(first)
            self.now = max(self.now, first[0])
            if not first[3].cancelled:
                first[1](*first[2])
            await settle()
        self.now = moment


class Handle:
    """A timer that can be taken back."""

    def __init__(self, moment: float) -> None:
        self.moment, self.cancelled = moment, False

    def cancel(self) -> None:
        self.cancelled = True

    def when(self) -> float:
        return self.moment


class Looks:
    """Records looks; answers with what it is told to."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seen: list[tuple[float, str]] = []
        self.answers: list[float | Exception | Awaitable[None] | None] = []

    async def __call__(self, key: Key) -> float | None:
        self.seen.append((self.clock.now, key.name))
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float) or answer is None:
            return answer
        await answer
        return None


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
async def looks(clock: Clock) -> Looks:
    return Looks(clock)


@pytest.fixture
async def queue(clock: Clock, looks: Looks) -> WorkQueue:
    return WorkQueue(looks, clock=lambda: clock.now, jitter=lambda: 1.0)


async def test_a_resource_is_looked_at_once_however_often_it_is_asked_for(
    clock: Clock, looks: Looks, queue: WorkQueue
) -> None:
    for _ in range(5):
        queue.enqueue(A)
    queue.enqueue(B)
    await clock.turn_to(10)

    assert looks.seen == [(0.0, "a"), (0.0, "b")]


async def test_the_earliest_look_wins(clock: Clock, looks: Looks, queue: WorkQueue) -> None:
    queue.enqueue(A, after=30)
    queue.enqueue(A, after=5)
    queue.enqueue(A, after=60)
    await clock.turn_to(100)

    assert looks.seen == [(5.0, "a")]


async def test_who_asks_during_a_look_gets_another_one_after_it(clock: Clock, looks: Looks, queue: WorkQueue) -> None:
    held = asyncio.Event()
    looks.answers = [held.wait()]  # type: ignore[list-item]  # its True is of no interest
    queue.enqueue(A)
    await clock.turn_to(1)
    queue.enqueue(A)
    queue.enqueue(A)
    await clock.turn_to(2)
    assert looks.seen == [(0.0, "a")]

    held.set()
    await settle()
    await clock.turn_to(3)

    assert looks.seen == [(0.0, "a"), (2.0, "a")]


async def test_a_look_says_when_the_next_one_is_due(clock: Clock, looks: Looks, queue: WorkQueue) -> None:
    looks.answers = [60.0]
    queue.enqueue(A)
    await clock.turn_to(200)

    assert looks.seen == [(0.0, "a"), (60.0, "a")]


async def test_a_chatty_log_is_looked_at_once_a_second(clock: Clock, looks: Looks, queue: WorkQueue) -> None:
    queue.enqueue(A)
    await clock.turn_to(0)
    for tenth in range(1, 31):
        queue.enqueue(A, gentle=True)
        await clock.turn_to(tenth / 10)

    assert looks.seen == [(0.0, "a"), (1.0, "a"), (2.0, "a"), (3.0, "a")]


async def test_an_urgent_look_does_not_wait_for_a_gentle_one(clock: Clock, looks: Looks, queue: WorkQueue) -> None:
    queue.enqueue(A)
    await clock.turn_to(0.2)
    queue.enqueue(A, gentle=True)
    queue.enqueue(A)
    await clock.turn_to(5)

    assert looks.seen == [(0.0, "a"), (0.2, "a")]


FAILURES = [
    pytest.param([0.0, 1.0, 3.0, 7.0], TemporaryError("the server rests"), id="temporary: pauses double"),
    pytest.param([0.0, 1.0, 3.0, 7.0], PermanentError("no"), id="permanent, not handled by the look"),
    pytest.param([0.0, 1.0, 3.0, 7.0], KeyError("bug"), id="a mistake of ours"),
    pytest.param([0.0, 0.4, 0.8, 1.2], ConflictError("changed"), id="conflict: soon, without growing"),
]


@pytest.mark.parametrize(("expected", "error"), FAILURES)
async def test_a_failed_look_is_tried_again(
    expected: list[float], error: Exception, clock: Clock, looks: Looks, queue: WorkQueue
) -> None:
    looks.answers = [error] * 3
    queue.enqueue(A)
    await clock.turn_to(1000)

    assert [moment for moment, _ in looks.seen] == pytest.approx(expected)


async def test_pauses_have_an_end_and_a_success_makes_them_short_again(
    clock: Clock, looks: Looks, queue: WorkQueue
) -> None:
    looks.answers = [*[TemporaryError("x")] * 12, 10.0, TemporaryError("x")]
    queue.enqueue(A)
    await clock.turn_to(100_000)

    moments = [moment for moment, _ in looks.seen]
    pauses = [later - earlier for earlier, later in pairwise(moments)]
    assert max(pauses) == 300.0
    assert pauses[-2:] == [10.0, 1.0]


async def test_what_is_forgotten_is_not_looked_at(clock: Clock, looks: Looks, queue: WorkQueue) -> None:
    queue.enqueue(A, after=5)
    queue.forget(A)
    queue.forget(B)
    await clock.turn_to(100)

    assert looks.seen == []


async def test_a_look_that_was_cancelled_from_outside_does_not_keep_the_queue_from_closing(
    clock: Clock, looks: Looks, queue: WorkQueue
) -> None:
    looks.answers = [asyncio.Event().wait()]  # type: ignore[list-item]  # it never comes
    queue.enqueue(A)
    await clock.turn_to(1)
    (look,) = [task for task in asyncio.all_tasks() if task.get_name() == str(A)]

    closing = asyncio.create_task(queue.close())
    await settle()
    look.cancel()
    await closing

    assert looks.seen == [(0.0, "a")]


async def test_closing_waits_for_the_look_under_way_and_plans_no_other(
    clock: Clock, looks: Looks, queue: WorkQueue
) -> None:
    held = asyncio.Event()
    looks.answers = [held.wait()]  # type: ignore[list-item]  # its True is of no interest
    queue.enqueue(A)
    queue.enqueue(B, after=5)
    await clock.turn_to(1)

    closing = asyncio.create_task(queue.close())
    await settle()
    assert not closing.done()
    held.set()
    await closing
    queue.enqueue(A)
    await clock.turn_to(100)

    assert looks.seen == [(0.0, "a")]


async def test_the_queue_tells_what_waits_for_its_turn_what_is_looked_at_and_what_failed(
    clock: Clock, looks: Looks, queue: WorkQueue
) -> None:
    held = asyncio.Event()
    looks.answers = [held.wait() for _ in range(CONCURRENCY)]  # type: ignore[misc]  # its True is of no interest
    looks.answers.append(TemporaryError("the server rests"))
    for number in range(CONCURRENCY + 2):
        queue.enqueue(Key("Project", "ns", f"p{number}"))
    queue.enqueue(A, after=60)
    await clock.turn_to(1)
    assert queue.count() == QueueCounts(waiting=2, working=CONCURRENCY, retrying=0)

    held.set()
    await settle()
    assert queue.count() == QueueCounts(waiting=0, working=0, retrying=1)
