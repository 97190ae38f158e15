"""Logs of running containers, followed through a real API server: as they come, without loss, to their end."""

import asyncio
import shlex
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.protocol import ProgressEvent, StageEvent, render
from codetune_operator.cluster.connecting import connect
from codetune_operator.handlers.keys import Key
from codetune_operator.handlers.tracking import LogTracker
from codetune_operator.reconcile.plan import Follow
from codetune_operator.runs.report import RunReport

if TYPE_CHECKING:
    from integration.conftest import Team

NONCE = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2


class Tracked:
    """A tracker and what it was woken for."""

    def __init__(self, team: "Team") -> None:
        self.key = Key("Project", team.name, "mine")
        self.woken = asyncio.Event()
        self.tracker = LogTracker(connect(team.installation.cluster.kubeconfig), lambda key: self.woken.set())

    def follow(self, *pods: str, finished: bool = False) -> None:
        follows = tuple(Follow(pod, "main", NONCE, finished=finished) for pod in pods)
        self.tracker.update(self.key, "slot", follows, RunReport())

    async def until_step(self, step: int) -> RunReport:
        async with asyncio.timeout(60):
            while True:
                report = self.tracker.report("slot")
                if report is not None and report.progress is not None and report.progress.step >= step:
                    return report
                await self.woken.wait()
                self.woken.clear()


@pytest.fixture
async def tracked(team: "Team") -> AsyncIterator[Tracked]:
    made = Tracked(team)
    yield made
    await made.tracker.close()


def start_pod(team: "Team", name: str, script: str) -> None:
    container = {"name": "main", "image": "local/exec", "command": ["sh", "-c", script]}
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    team.apply(pod)
    team.wait_until(
        lambda: team.status("pod", name).get("phase") in {"Running", "Succeeded"}, f"pod {name} has started"
    )


def say(step: int, nonce: str = NONCE) -> str:
    return f"echo {shlex.quote(render(ProgressEvent(step=step, total=100, loss=1.0), nonce))}"


async def test_lines_arrive_while_the_container_still_runs(team: "Team", tracked: Tracked) -> None:
    start_pod(team, "slow", f"{say(1)}; {say(2)}; sleep 300")

    tracked.follow("slow")
    report = await tracked.until_step(2)

    assert team.status("pod", "slow")["phase"] == "Running"
    assert [point.step for point in report.loss_history] == [1, 2]


async def test_a_container_that_has_ended_is_read_to_its_last_line(team: "Team", tracked: Tracked) -> None:
    start_pod(team, "done", "; ".join([*(say(step) for step in range(1, 51)), "echo talk", say(60)]))

    tracked.follow("done", finished=True)
    report = await tracked.until_step(60)

    assert len(report.loss_history) == 51


async def test_lines_of_others_do_not_count(team: "Team", tracked: Tracked) -> None:
    forged = shlex.quote(render(StageEvent(stage="Forged"), OTHER))
    start_pod(team, "liar", f"echo {forged}; {say(99, OTHER)}; {say(7)}")

    tracked.follow("liar", finished=True)
    report = await tracked.until_step(7)

    assert (report.stage, report.progress and report.progress.step) == ("", 7)


async def test_the_next_attempt_is_read_after_the_former_one(team: "Team", tracked: Tracked) -> None:
    start_pod(team, "first", f"{say(10)}; {say(20)}")
    start_pod(team, "second", f"{say(15)}; {say(40)}")

    tracked.follow("first", "second", finished=True)
    report = await tracked.until_step(40)

    assert [point.step for point in report.loss_history] == [10, 15, 40]
