"""Two replicas with the real vLLM on a CPU, four adapters, API keys, and a load that never pauses.

What every single answer says is compared with PEFT's oracle for the version that its name meant at that moment
(`benchmarks/serving/load.py`); all ask for the same text, which is in vLLM's prefix cache. Left out: the Service in
front; clients take the replicas in turn.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from codetune_api.contracts import DesiredAdapters, ServerReport

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "serving"))

from fleet import KEY, START, VERSIONS, Fleet
from load import Load, Says, Timeline, ask, is_same
from replicas import TOKEN, Replica, bearer, desire
from swaps import KINDS, tell_swaps

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(700)]

SWAPS = 50
CLIENTS = 8


def test_the_versions_say_different_things(fleet: Fleet) -> None:
    said = [tuple(tokens) for tokens, _ in fleet.expected.values()]
    assert len(set(said)) == len(VERSIONS)


def test_changes_under_a_steady_load_fail_nothing_mix_nothing_and_leave_nothing_stale(fleet: Fleet) -> None:
    load = Load(fleet.urls, sorted(START), fleet.expected, Timeline.start(START), KEY)
    cached = fleet.count("vllm:prefix_cache_hits_total")
    kinds = asyncio.run(swap_under_load(fleet, load))
    assert load.tally.faults == []
    assert fleet.count("vllm:prefix_cache_hits_total") - cached > 64 * load.tally.answers  # each asks for the same text
    assert kinds == [KINDS[number % len(KINDS)] for number in range(SWAPS)]
    assert load.tally.answers > SWAPS * CLIENTS
    assert load.tally.absent > 0  # removed names are told to be unknown
    assert len(load.tally.seen) > len(START)  # the changes were seen
    for replica in fleet.replicas:
        assert len(list((replica.folder / "cache").iterdir())) <= len(START)


async def swap_under_load(fleet: Fleet, load: Load) -> list[str]:
    """Go through the story; every state is seen by requests that began in it."""
    kinds, current = [], dict(START)
    async with load.run(CLIENTS):
        await load.see(CLIENTS)
        for kind, versions in tell_swaps(START, VERSIONS, SWAPS, seed=7):
            load.timeline.change(current, versions)
            await fleet.tell(versions)
            load.timeline.settle(versions)
            await load.see(CLIENTS)
            current = versions
            kinds.append(str(kind))
        load.timeline.change(current, START)
        await fleet.tell(START)
        load.timeline.settle(START)
        await load.see(CLIENTS)
    return kinds


def test_a_set_whose_teller_was_killed_is_settled_all_the_same(fleet: Fleet) -> None:
    desired = desire(fleet.store, {**START, "a": "v5", "b": "v6"})
    wanted = {adapter.name: adapter.digest for adapter in desired.adapters}
    for replica in fleet.replicas:
        with tell_without_listening(replica, desired):
            wait_for_report(replica, lambda report: {s.name: s.desired_digest for s in report.adapters} == wanted)
    for replica in fleet.replicas:
        wait_for_report(replica, lambda report: report.ready and {s.name: s.digest for s in report.adapters} == wanted)
        assert is_same(say(replica, "a"), fleet.expected["v5"])
        assert is_same(say(replica, "b"), fleet.expected["v6"])
    asyncio.run(fleet.tell(START))


def tell_without_listening(replica: Replica, desired: DesiredAdapters) -> socket.socket:
    """Send a PUT; the connection ends with the context, whatever was answered by then."""
    body = json.dumps(desired.to_wire()).encode()
    head = (
        f"PUT /codetune/adapters?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", replica.port))
    connection.sendall(head.encode() + body)
    return connection


def wait_for_report(replica: Replica, is_wanted: Callable[[ServerReport], bool]) -> None:
    deadline = time.monotonic() + 60
    while True:
        answer = httpx.get(f"{replica.url}/codetune/adapters", headers=bearer(TOKEN), timeout=30)
        report = ServerReport.from_wire(answer.json())
        if is_wanted(report):
            return
        assert time.monotonic() < deadline, report
        time.sleep(0.05)


def say(replica: Replica, name: str) -> Says:
    async def once() -> Says:
        async with httpx.AsyncClient(timeout=60, headers=bearer(KEY)) as client:
            status, said = await ask(client, replica.url, name)
            assert status == 200
            return said

    return asyncio.run(once())


def test_a_killed_replica_has_all_its_adapters_before_it_takes_traffic(fleet: Fleet) -> None:
    killed, other = fleet.replicas
    killed.kill()
    assert not killed.is_ready()
    load = Load([other.url], sorted(START), fleet.expected, Timeline.start(START), KEY, pause_seconds=0.5)

    async def come_back() -> None:
        async with load.run(1):  # the other one goes on meanwhile
            killed.start()
            await asyncio.to_thread(killed.wait_until_ready)

    asyncio.run(come_back())
    assert load.tally.faults == []
    for name, version in START.items():
        assert is_same(say(killed, name), fleet.expected[version])


def client_of(fleet: Fleet, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{fleet.urls[0]}/v1", api_key=key, max_retries=0)


def test_every_route_of_the_real_server_asks_for_a_key_and_keys_are_renewed(fleet: Fleet) -> None:
    url = fleet.urls[0]
    for path in ("/v1/models", "/metrics", "/version", "/openapi.json", "/docs", "/tokenize", "/load"):
        assert httpx.get(url + path, timeout=30).status_code == 401, path
    for path in ("/health", "/codetune/ready"):
        assert httpx.get(url + path, timeout=30).status_code == 200, path
    file = fleet.root / "keys" / "team"
    file.write_text("sk-another\n")
    with pytest.raises(openai.AuthenticationError):
        client_of(fleet).models.list()
    assert client_of(fleet, "sk-another").models.list().data
    file.write_text(f"{KEY}\n")
    assert client_of(fleet).models.list().data


async def stream_through(fleet: Fleet, replica: Replica, leave: Any) -> tuple[int, Says]:
    """A long stream during which the replica is asked to leave."""
    async with httpx.AsyncClient(timeout=120, headers=bearer(KEY)) as client:
        stream = asyncio.create_task(ask(client, replica.url, "a", tokens=200))
        metrics = f"{replica.url}/metrics"
        while "vllm:num_requests_running{" in (text := (await client.get(metrics)).text):
            line = next(line for line in text.splitlines() if line.startswith("vllm:num_requests_running{"))
            if float(line.split()[-1]) >= 1 or stream.done():
                break
        await asyncio.to_thread(leave)
        return await stream


def test_the_pre_stop_hook_waits_for_a_stream_and_the_signal_then_finds_nobody(fleet: Fleet) -> None:
    replica = fleet.replicas[0]
    hook = [sys.executable, "-m", "codetune_server", "drain", "--port", str(replica.port), "--settle", "0"]

    def leave() -> None:
        subprocess.run(hook, env=replica.environment, check=True, timeout=120)

    status, (tokens, _) = asyncio.run(stream_through(fleet, replica, leave))
    assert (status, len(tokens)) == (200, 200)
    assert not replica.is_ready()
    assert httpx.get(f"{replica.url}/v1/models", headers=bearer(KEY)).headers["connection"] == "close"
    assert replica.stop() == 0


def test_a_bare_signal_lets_a_stream_end_too(fleet: Fleet) -> None:
    replica = fleet.replicas[1]
    assert replica.process is not None
    status, (tokens, _) = asyncio.run(stream_through(fleet, replica, replica.process.terminate))
    assert (status, len(tokens)) == (200, 200)
    assert replica.stop() == 0
