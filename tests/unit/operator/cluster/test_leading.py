"""Of several operators one works: who holds the Lease when, on a clock that is played.

Not here: two processes and a real end of one of them, which is tests/integration/test_operator_standby.py.
"""

import asyncio
import copy
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.leading import Candidate
from codetune_operator.errors import (
    ConflictError,
    ForbiddenError,
    LeadLostError,
    MissingError,
    OperatorError,
    TemporaryError,
)

Obj = dict[str, Any]
PATH = "/apis/coordination.k8s.io/v1/namespaces/system/leases"


def make(holder: str, seconds: int = 15, **spec: Any) -> Obj:
    """A Lease as it lies in the API server."""
    metadata = {"name": "codetune-operator", "namespace": "system", "resourceVersion": "7"}
    told = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": "", "leaseTransitions": 3}
    return {"metadata": metadata, "spec": {**told, **spec}}


class PlayedLoop(asyncio.SelectorEventLoop):
    """Its time passes only where there is nothing to do; what would run in a thread is done at once."""

    def __init__(self) -> None:
        super().__init__(_PlayedSelector(self))
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except HangsError:
            """Nobody ever answers."""
        except OperatorError as error:
            future.set_exception(error)
        return future


class _PlayedSelector(selectors.DefaultSelector):
    def __init__(self, loop: PlayedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for nothing"
        self._loop.now += timeout
        return super().select(0)


class HangsError(Exception):
    """A request that is never answered."""


class FakeCluster:
    """An API server that holds one Lease."""

    def __init__(self, lease: Obj | None = None) -> None:
        self.lease = lease
        self.trouble: Exception | None = None
        self.calls: list[str] = []
        self.before_write: Callable[[], None] = lambda: None

    @property
    def spec(self) -> Obj:
        assert self.lease is not None
        return cast(Obj, self.lease["spec"])

    def change(self, **spec: Any) -> None:
        """What somebody else writes."""
        lease = self.lease or make("")
        version = str(int(lease["metadata"]["resourceVersion"]) + 1)
        metadata = {**lease["metadata"], "resourceVersion": version}
        self.lease = {"metadata": metadata, "spec": {**lease["spec"], **spec}}

    def send(self, method: str, path: str, *, body: Obj | None = None, seconds: float) -> Obj:
        self.calls.append(method)
        if self.trouble is not None:
            raise self.trouble
        if method == "GET":
            if self.lease is None:
                raise MissingError("not found")
            return copy.deepcopy(self.lease)
        self.before_write()
        assert body is not None
        if method == "POST":
            assert path == PATH
            if self.lease is not None:
                raise ConflictError("already exists")
        else:
            assert (method, path) == ("PUT", f"{PATH}/codetune-operator")
            if self.lease is None:
                raise MissingError("not found")
            if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise ConflictError("the object has been modified")
        self.lease = {"metadata": {**body["metadata"], "resourceVersion": "7"}, "spec": {}}
        self.change(**body["spec"])
        return self.lease


def play(scene: Callable[[PlayedLoop], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=PlayedLoop) as runner:
        runner.run(scene(cast(PlayedLoop, runner.get_loop())))


def candidate(cluster: FakeCluster, identity: str = "me") -> Candidate:
    return Candidate(cast(Cluster, cluster), namespace="system", identity=identity)


def test_the_first_one_makes_the_lease() -> None:
    cluster = FakeCluster()

    async def scene(loop: PlayedLoop) -> None:
        await candidate(cluster).acquire()
        assert loop.now == 1000

    play(scene)
    assert cluster.spec["holderIdentity"] == "me"
    assert cluster.calls == ["GET", "POST"]


def test_a_lease_that_is_renewed_is_never_taken() -> None:
    cluster = FakeCluster(make("other"))

    async def scene(loop: PlayedLoop) -> None:
        waiting = loop.create_task(candidate(cluster).acquire())
        for number in range(60):
            await asyncio.sleep(7)
            cluster.change(renewTime=str(number))
        assert not waiting.done()

    play(scene)
    assert cluster.spec["holderIdentity"] == "other"
    assert set(cluster.calls) == {"GET"}


def test_a_lease_that_nobody_renews_is_taken_when_it_was_seen_unchanged_for_as_long_as_it_lasts() -> None:
    cluster = FakeCluster(make("other", 30, renewTime="2001-01-01T00:00:00.000000Z"))

    async def scene(loop: PlayedLoop) -> None:
        await candidate(cluster).acquire()
        assert 1030 < loop.now <= 1032

    play(scene)
    assert (cluster.spec["holderIdentity"], cluster.spec["leaseTransitions"]) == ("me", 4)


def test_a_change_that_is_none_of_the_holders_does_not_prolong_its_lease() -> None:
    cluster = FakeCluster(make("other"))

    async def scene(loop: PlayedLoop) -> None:
        waiting = loop.create_task(candidate(cluster).acquire())
        await asyncio.sleep(10)
        cluster.change()
        await waiting
        assert loop.now <= 1018

    play(scene)


def test_a_released_lease_is_taken_at_the_next_look() -> None:
    cluster = FakeCluster(make("other"))

    async def scene(loop: PlayedLoop) -> None:
        waiting = loop.create_task(candidate(cluster).acquire())
        await asyncio.sleep(5)
        cluster.change(holderIdentity="", leaseDurationSeconds=1)
        await waiting
        assert loop.now <= 1007

    play(scene)


def test_who_loses_a_race_stands_by() -> None:
    cluster = FakeCluster(make(""))
    cluster.before_write = lambda: cluster.change(holderIdentity="faster")

    async def scene(loop: PlayedLoop) -> None:
        waiting = loop.create_task(candidate(cluster).acquire())
        await asyncio.sleep(5)
        assert not waiting.done()

    play(scene)
    assert cluster.spec["holderIdentity"] == "faster"


def test_a_lease_that_is_deleted_while_it_is_taken_is_made_at_the_next_look() -> None:
    cluster = FakeCluster(make(""))

    def delete() -> None:
        cluster.lease, cluster.before_write = None, lambda: None

    cluster.before_write = delete

    async def scene(loop: PlayedLoop) -> None:
        await candidate(cluster).acquire()
        assert loop.now == 1002

    play(scene)
    assert cluster.calls == ["GET", "PUT", "GET", "POST"]


def test_a_namespace_that_is_absent_is_told_at_the_start() -> None:
    cluster = FakeCluster()

    def refuse() -> None:
        raise MissingError('namespaces "system" not found')

    cluster.before_write = refuse

    async def scene(loop: PlayedLoop) -> None:
        with pytest.raises(MissingError, match='"system" not found'):
            await candidate(cluster).acquire()

    play(scene)


def test_standing_by_outlasts_an_api_server_that_is_away() -> None:
    cluster = FakeCluster(make(""))
    cluster.trouble = TemporaryError("can't be reached")

    async def scene(loop: PlayedLoop) -> None:
        waiting = loop.create_task(candidate(cluster).acquire())
        await asyncio.sleep(100)
        cluster.trouble = None
        await waiting
        assert loop.now <= 1102

    play(scene)


def test_a_right_that_is_lacking_is_told_at_the_start() -> None:
    cluster = FakeCluster()
    cluster.trouble = ForbiddenError("cannot get leases: upgrade the Helm chart")

    async def scene(loop: PlayedLoop) -> None:
        with pytest.raises(ForbiddenError, match="upgrade the Helm chart"):
            await candidate(cluster).acquire()

    play(scene)


def test_the_holder_renews_in_time_and_through_short_trouble() -> None:
    cluster = FakeCluster()

    async def scene(loop: PlayedLoop) -> None:
        leader = candidate(cluster)
        await leader.acquire()
        keeping = loop.create_task(leader.keep())
        for error in (TemporaryError("away"), ForbiddenError("the Role is replaced"), ConflictError("changed"), None):
            first, cluster.trouble = cluster.lease, error
            await asyncio.sleep(6)
            cluster.trouble = None
            await asyncio.sleep(3)
            assert not keeping.done()
            assert cluster.lease != first

    play(scene)
    assert (cluster.spec["holderIdentity"], cluster.spec["leaseTransitions"]) == ("me", 0)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(TemporaryError("can't be reached"), id="away"),
        pytest.param(ForbiddenError("no right any more"), id="forbidden"),
        pytest.param(HangsError(), id="no answer"),
    ],
)
def test_who_can_not_renew_gives_up_before_others_may_take_over(trouble: Exception) -> None:
    cluster = FakeCluster()

    async def scene(loop: PlayedLoop) -> None:
        leader = candidate(cluster)
        await leader.acquire()
        cluster.trouble = trouble
        with pytest.raises(LeadLostError, match="could not renew the Lease system/codetune-operator for 10 s"):
            await leader.keep()
        assert loop.now == 1010

    play(scene)


def test_who_has_lost_the_lease_ends_at_the_next_look() -> None:
    cluster = FakeCluster()

    async def scene(loop: PlayedLoop) -> None:
        leader = candidate(cluster)
        await leader.acquire()
        cluster.change(holderIdentity="other")
        with pytest.raises(LeadLostError, match="other has taken the Lease"):
            await leader.keep()
        assert loop.now == 1002

    play(scene)
    assert cluster.spec["holderIdentity"] == "other"


def test_who_has_slept_for_too_long_ends_without_another_write() -> None:
    cluster = FakeCluster()

    async def scene(loop: PlayedLoop) -> None:
        leader = candidate(cluster)
        await leader.acquire()
        keeping = loop.create_task(leader.keep())
        await asyncio.sleep(1)
        loop.now += 60
        cluster.trouble = HangsError()
        with pytest.raises(LeadLostError):
            await keeping
        assert loop.now == 1061

    play(scene)


def test_a_lease_that_is_deleted_is_made_again() -> None:
    cluster = FakeCluster()

    async def scene(loop: PlayedLoop) -> None:
        leader = candidate(cluster)
        await leader.acquire()
        keeping = loop.create_task(leader.keep())
        cluster.lease = None
        await asyncio.sleep(3)
        assert not keeping.done()

    play(scene)
    assert cluster.spec["holderIdentity"] == "me"


def test_what_is_released_is_taken_by_the_next_one() -> None:
    cluster = FakeCluster()

    async def scene(loop: PlayedLoop) -> None:
        leader = candidate(cluster)
        await leader.acquire()
        next_one = loop.create_task(candidate(cluster, "next").acquire())
        await asyncio.sleep(3)
        await leader.release()
        assert (cluster.spec["holderIdentity"], cluster.spec["leaseDurationSeconds"]) == ("", 1)
        await next_one
        assert loop.now <= 1005

    play(scene)
    assert (cluster.spec["holderIdentity"], cluster.spec["leaseTransitions"]) == ("next", 1)


def test_who_never_held_it_releases_nothing() -> None:
    cluster = FakeCluster(make("me"))

    async def scene(loop: PlayedLoop) -> None:
        await candidate(cluster).release()

    play(scene)
    assert cluster.calls == []


@pytest.mark.parametrize("trouble", [TemporaryError("away"), HangsError()], ids=["away", "no answer"])
def test_a_release_that_fails_holds_up_no_end(trouble: Exception) -> None:
    cluster = FakeCluster()

    async def scene(loop: PlayedLoop) -> None:
        leader = candidate(cluster)
        await leader.acquire()
        cluster.trouble = trouble
        await leader.release()
        assert loop.now <= 1010

    play(scene)
