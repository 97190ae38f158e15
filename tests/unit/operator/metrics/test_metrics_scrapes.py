"""Scrapes over HTTP: where they are answered, with what, and from when on."""

import asyncio
import socket
import threading
import time
import urllib.request
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from codetune_operator.errors import SettingsError
from codetune_operator.handlers.keys import Key
from codetune_operator.handlers.queueing import WorkQueue
from codetune_operator.handlers.storing import Obj, Store
from codetune_operator.metrics import answering
from codetune_operator.metrics.collecting import CATALOGUE
from codetune_operator.metrics.exposing import Exposition
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

FINETUNE: Obj = {
    "kind": "FineTune",
    "metadata": {"namespace": "ns", "name": "mine", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "status": {"progress": {"loss": 1.5}},
}
LOSS = 'codetune_finetune_loss{name="mine",namespace="ns"} 1.5'


class Together(Collector):
    """Counts how many scrapes ask it at once."""

    def __init__(self) -> None:
        self.now, self.most = 0, 0

    def collect(self) -> Iterable[Metric]:
        self.now += 1
        self.most = max(self.most, self.now)
        time.sleep(0.05)
        self.now -= 1
        return ()


def free_url(host: str = "127.0.0.1") -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as found:
        port = found.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


async def scrape(url: str, accept: str = "*/*") -> tuple[str, str]:
    """Content type and text."""

    def ask() -> tuple[str, str]:
        request = urllib.request.Request(url, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.headers["Content-Type"]), answer.read().decode()

    return await asyncio.to_thread(ask)


async def make_queue() -> WorkQueue:
    async def look(_: Key) -> None:
        return None

    return WorkQueue(look)


@pytest.mark.parametrize("host", [pytest.param("127.0.0.1", id="IPv4"), pytest.param("::1", id="IPv6")])
async def test_a_standby_answers_and_says_that_it_does_not_lead(host: str) -> None:
    url = free_url(host)
    with Exposition().listen(url):
        _, text = await scrape(url)
    assert "codetune_operator_leading 0.0" in text
    assert "process_resident_memory_bytes" in text or not Path("/proc").exists()


async def test_resources_are_told_while_the_operator_reconciles_and_as_long_as_they_are_there() -> None:
    exposition, store, url = Exposition(), Store(), free_url()
    store.put(FINETUNE)
    with exposition.listen(url):
        exposition.show(store, await make_queue(), {})
        _, text = await scrape(url)
        assert {LOSS, "codetune_operator_leading 1.0", "codetune_queue_depth 0.0"} <= set(text.splitlines())

        store.remove(FINETUNE)
        assert 'name="mine"' not in (await scrape(url))[1]

        store.put(FINETUNE)
        exposition.hide()
        assert LOSS not in (await scrape(url))[1]


async def test_a_namespace_that_is_left_out_is_told() -> None:
    exposition, url = Exposition(), free_url()
    with exposition.listen(url):
        exposition.show(Store(), await make_queue(), {"ours": True, "away": False})
        _, text = await scrape(url)
    told = {line for line in text.splitlines() if line.startswith("codetune_operator_namespace_watched")}
    metric = "codetune_operator_namespace_watched"
    assert told == {metric + '{namespace="ours"} 1.0', metric + '{namespace="away"} 0.0'}


async def test_prometheus_gets_openmetrics_where_it_asks_for_that_and_it_is_sound() -> None:
    exposition, store, url = Exposition(), Store(), free_url()
    store.put(FINETUNE)
    with exposition.listen(url):
        exposition.show(store, await make_queue(), {})
        kind, text = await scrape(url, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    found = {family.name for family in text_string_to_metric_families(text)}
    assert {"codetune_finetune_loss", "codetune_finetune_restarts", "codetune_reconcile_seconds"} < found


async def test_every_series_is_of_a_metric_in_the_catalogue_or_of_the_process() -> None:
    exposition, store, url = Exposition(), Store(), free_url()
    with exposition.listen(url):
        exposition.show(store, await make_queue(), {})
        _, text = await scrape(url)
    told = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    own = {name for name in told if not name.startswith(("process_", "python_"))}
    assert own == {family.name for family in CATALOGUE}


async def test_clients_that_say_nothing_take_few_threads_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering._Handler, "timeout", 1.0)
    url = free_url()
    before = threading.active_count()
    with Exposition().listen(url), ExitStack() as stack:
        for _ in range(4 * answering.CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)))
            await asyncio.sleep(0.005)  # more than five that wait to be accepted are a second late each
        await asyncio.sleep(0.2)
        assert threading.active_count() <= before + answering.CONNECTIONS + 1
        await asyncio.sleep(1.5)
        assert "codetune_operator_leading 0.0" in (await scrape(url))[1]


async def test_scrapes_at_once_are_put_together_one_after_the_other() -> None:
    exposition, url, together = Exposition(), free_url(), Together()
    exposition.registry.register(together)
    with exposition.listen(url):
        texts = await asyncio.gather(*(scrape(url) for _ in range(4)))
    assert [("codetune_operator_leading" in text) for _, text in texts] == [True] * 4
    assert together.most == 1


async def test_it_listens_without_a_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("asked for a name"))
    with Exposition().listen(free_url()):
        pass


async def test_nothing_listens_where_nobody_asked_for_it() -> None:
    with Exposition().listen(None):
        pass


PLACES = [
    pytest.param("http://203.0.113.1:9/metrics", id="another machine's address"),
    pytest.param("http://127.0.0.1:99999/metrics", id="no port"),
    pytest.param("8081", id="no URL"),
]


@pytest.mark.parametrize("url", PLACES)
async def test_a_place_where_nothing_can_listen_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"Scrapes can't be answered at .*Give another --metrics URL\."):
        Exposition().listen(url).__enter__()
