"""What a client waits longer for with the middleware than for bare vLLM, from requests to both in turn.

A machine's noise is a hundred times what is looked for, so what counts is the difference within pairs of requests that
follow each other, which of the two comes first being drawn by lot, and how sure the median of these differences is.
How much two processes of one program differ is told beside it: no smaller difference means anything.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
import numpy
from load import ask
from replicas import Replica

STREAMED = 65
WARM_UP = 5
RESAMPLES = 2000


@dataclass(frozen=True)
class Difference:
    """How much longer the first of two took, in seconds: the median, and where it lies with 95 % certainty."""

    bare: float
    median: float
    low: float
    high: float

    def __str__(self) -> str:
        part = f"{self.median / self.bare:+.2%}"
        between = f"95 %: {self.low * 1e6:+.0f} to {self.high * 1e6:+.0f} µs"
        return f"{self.median * 1e6:+.0f} µs ({part}; {between}) on {self.bare * 1e3:.2f} ms"


def compare(ours: Sequence[float], bare: Sequence[float]) -> Difference:
    """The difference within pairs, its certainty by resampling the pairs."""
    differences = numpy.array(ours) - numpy.array(bare)
    chosen = numpy.random.default_rng(0).integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = numpy.percentile(numpy.median(differences[chosen], axis=1), [2.5, 97.5])
    return Difference(float(numpy.median(bare)), float(numpy.median(differences)), float(low), float(high))


async def measure_latency(
    ours: Replica, twin: Replica, stock: Replica, pairs: int, streams: int
) -> list[tuple[str, str]]:
    """Rows of the table: a request of one token, and each further token of a stream.

    Args:
        ours: A server with the middleware.
        twin: Another one, the same in everything.
        stock: Bare vLLM.
        pairs: Of requests of one token.
        streams: Pairs of streams.
    """
    rows = []
    async with httpx.AsyncClient(timeout=120) as client:
        for others, urls in (("bare vLLM", (ours.url, stock.url)), ("a second one with it", (ours.url, twin.url))):
            one = await _alternate(client, urls, pairs, tokens=1)
            whole = await _alternate(client, urls, streams, tokens=STREAMED)
            each = compare(*([seconds / STREAMED for seconds in side] for side in whole))
            rows += [
                (f"a request of one token, with the middleware against {others} ({pairs} pairs)", str(compare(*one))),
                (f"each token of a stream of {STREAMED}, against the same ({streams} pairs)", str(each)),
            ]
    return rows


async def _alternate(
    client: httpx.AsyncClient, urls: tuple[str, str], count: int, *, tokens: int
) -> tuple[list[float], list[float]]:
    """Seconds of each request to the first and to the second, pair by pair."""
    times: dict[str, list[float]] = {url: [] for url in urls}
    toss: Callable[[], float] = random.Random(0).random
    for number in range(count + WARM_UP):
        for url in urls if toss() < 0.5 else urls[::-1]:
            seconds = await _time(client, url, tokens)
            if number >= WARM_UP:
                times[url].append(seconds)
    return times[urls[0]], times[urls[1]]


async def _time(client: httpx.AsyncClient, url: str, tokens: int) -> float:
    start = time.perf_counter()
    status, _ = await ask(client, url, "a", tokens)
    assert status == 200, f"{url} answered {status}"
    return time.perf_counter() - start
