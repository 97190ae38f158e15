"""When an elected operator works, and when it lets the next one work. Who is elected is in test_leading.py."""

import asyncio
import os
import signal
import socket
import urllib.request
from typing import Any, cast

import pytest
from codetune_operator.cluster.leading import Candidate
from codetune_operator.electing import StandbyProbes, Work, run_elected
from codetune_operator.errors import ForbiddenError, LeadLostError, SettingsError


class FakeCandidate:
    """Says what is asked of it; is elected and loses when the test says so."""

    def __init__(self, said: list[str]) -> None:
        self.said = said
        self.elected, self.lost = asyncio.Event(), asyncio.Event()

    async def acquire(self) -> None:
        self.said.append("stands by")
        await self.elected.wait()

    async def keep(self) -> None:
        await self.lost.wait()
        raise LeadLostError("other has taken the Lease over")

    async def release(self) -> None:
        self.said.append("releases")


class Scene:
    """One operator, and what happens in its order."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.candidate = FakeCandidate(self.said)
        self.working, self.finish = asyncio.Event(), asyncio.Event()

    async def work(self) -> None:
        self.said.append("works")
        self.working.set()
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.said.append("is broken off")
            raise
        self.said.append("has worked")

    def run(self, work: Work | None = None) -> asyncio.Task[None]:
        candidate: Any = self.candidate
        elected = run_elected(cast(Candidate, candidate), work or self.work, StandbyProbes(None))
        return asyncio.get_running_loop().create_task(elected)


async def test_it_works_once_it_is_elected_and_releases_after_its_work() -> None:
    scene = Scene()
    running = scene.run()
    await asyncio.sleep(0.01)
    assert scene.said == ["stands by"]
    scene.candidate.elected.set()
    await scene.working.wait()
    scene.finish.set()
    await running
    assert scene.said == ["stands by", "works", "has worked", "releases"]


async def test_a_standby_that_is_told_to_end_does_not_work() -> None:
    scene = Scene()
    running = scene.run()
    await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert scene.said == ["stands by", "releases"]


async def test_a_signal_before_the_work_listens_to_it_breaks_it_off() -> None:
    scene = Scene()
    running = scene.run()
    scene.candidate.elected.set()
    await scene.working.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert scene.said == ["stands by", "works", "is broken off", "releases"]


async def test_work_that_fails_leaves_the_lease_to_the_next_one() -> None:
    scene = Scene()

    async def fail() -> None:
        raise ForbiddenError("no Secrets")

    scene.candidate.elected.set()
    with pytest.raises(ForbiddenError, match="no Secrets"):
        await scene.run(fail)
    assert scene.said == ["stands by", "releases"]


async def test_work_is_neither_waited_for_nor_the_lease_released_when_it_is_lost() -> None:
    scene = Scene()
    scene.candidate.elected.set()
    running = scene.run()
    await scene.working.wait()
    scene.candidate.lost.set()
    with pytest.raises(LeadLostError):
        await running
    assert scene.said == ["stands by", "works"]


async def test_a_lease_that_is_lost_while_the_work_comes_to_its_end_is_not_released() -> None:
    scene = Scene()

    async def go_on() -> None:
        scene.working.set()
        while not scene.finish.is_set():
            try:
                await scene.finish.wait()
            except asyncio.CancelledError:
                scene.said.append("goes on")

    scene.candidate.elected.set()
    running = scene.run(go_on)
    await scene.working.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    while "goes on" not in scene.said:
        await asyncio.sleep(0.01)
    scene.candidate.lost.set()
    with pytest.raises(LeadLostError):
        await running
    assert "releases" not in scene.said
    scene.finish.set()


async def test_a_standby_answers_its_probes_until_it_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/healthz"
        with pytest.raises(SettingsError, match="--liveness"):
            await StandbyProbes(url).open()
    probes = StandbyProbes(url)
    await probes.open()
    with await asyncio.to_thread(urllib.request.urlopen, url, timeout=5) as answer:
        assert answer.status == 200
    await probes.close()
    await probes.close()
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(urllib.request.urlopen, url, timeout=5)
