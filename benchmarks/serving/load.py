"""A steady streaming load on all replicas, and a check of every single answer.

An answer is right when it was streamed to its end and its tokens and log-probabilities are those of one version that
its name may have meant while the request was made. Which versions those are is told before each change and after it.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

PROMPT = "".join(f"def add_{number}(value):\n    return value + {number}\n\n" for number in range(4))[:140]
"""Longer than a block of vLLM's cache on a CPU (128 tokens), so that what is cached of it is used."""
TOKENS = 8
TOLERANCE = 2e-3
"""How far two log-probabilities of the same version may differ: in a batch, sums are taken in another order."""

Says = tuple[list[int], list[float]]
"""Token ids and their log-probabilities."""


@dataclass
class Timeline:
    """What each name may mean, in the order of the changes; None: nothing."""

    history: list[dict[str, set[str | None]]]

    @classmethod
    def start(cls, versions: Mapping[str, str]) -> "Timeline":
        """Everything is settled."""
        return cls([{name: {version} for name, version in versions.items()}])

    def change(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """From now on until `settle`, some replicas may have the old set and others the new one."""
        names = self.history[-1].keys() | before.keys() | after.keys()
        self.history.append({name: {before.get(name), after.get(name)} for name in names})

    def settle(self, after: Mapping[str, str]) -> None:
        """Every replica has told that it serves the new set."""
        self.history.append({name: {after.get(name)} for name in self.history[-1]})

    def meant(self, name: str, since: int) -> set[str | None]:
        """What a name may have meant from an entry of the history on until now."""
        return set().union(*(entry.get(name, {None}) for entry in self.history[since:]))


@dataclass
class Tally:
    """What the clients have seen."""

    answers: int = 0
    absent: int = 0
    """Requests for a name that was not served at that moment, and told so."""
    seen: set[tuple[str, str]] = field(default_factory=set)
    """Name and version of the answers."""
    faults: list[str] = field(default_factory=list)


@dataclass
class Load:
    """Clients that ask without a pause; `expected` is what each version says."""

    urls: Sequence[str]
    names: Sequence[str]
    expected: Mapping[str, Says]
    timeline: Timeline
    key: str = ""
    pause_seconds: float = 0
    """Of each client, between an answer and its next request."""
    tally: Tally = field(default_factory=Tally)
    _turn: "itertools.count[int]" = field(default_factory=itertools.count)
    _started_since: int = 0

    @asynccontextmanager
    async def run(self, clients: int) -> AsyncIterator[None]:
        """Ask for as long as the context lasts."""
        over = asyncio.Event()
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(timeout=120, headers=headers, limits=limits) as client:
            tasks = [asyncio.create_task(self._ask_on(client, over)) for _ in range(clients)]
            try:
                yield
            finally:
                over.set()
                await asyncio.gather(*tasks)

    async def see(self, answers: int) -> None:
        """Let so many more requests be answered that began after this call."""
        entry = len(self.timeline.history)
        self.timeline.history.append(self.timeline.history[-1])  # marks the moment
        self._started_since = 0
        while self._started_since < answers and not self.tally.faults:
            await asyncio.sleep(0.01)
        assert entry < len(self.timeline.history)

    async def _ask_on(self, client: httpx.AsyncClient, over: asyncio.Event) -> None:
        while not over.is_set():
            turn = next(self._turn)
            name = self.names[turn % len(self.names)]
            # So that each name meets each replica, whatever the numbers of both are.
            url = self.urls[(turn + turn // len(self.names)) % len(self.urls)]
            since = len(self.timeline.history) - 1
            try:
                status, said = await ask(client, url, name)
            except (httpx.HTTPError, AssertionError, ValueError, KeyError) as error:
                self.tally.faults.append(f"{name} at {url}: {type(error).__name__}: {error}")
                return
            self._judge(name, self.timeline.meant(name, since), status, said)
            if since >= len(self.timeline.history) - 1:
                self._started_since += 1
            await asyncio.sleep(self.pause_seconds)

    def _judge(self, name: str, meant: set[str | None], status: int, said: Says) -> None:
        self.tally.answers += 1
        if status == 404 and None in meant:
            self.tally.absent += 1
            return
        version = next((v for v, expected in self.expected.items() if status == 200 and is_same(said, expected)), None)
        if version is None or version not in meant:
            self.tally.faults.append(f"{name} answered {status} with {version or said}, and meant one of {meant}")
        else:
            self.tally.seen.add((name, version))


def is_same(said: Says, expected: Says) -> bool:
    """Whether two answers come from the same version."""
    tokens, scores = said
    return tokens == expected[0] and all(
        abs(one - other) <= TOLERANCE for one, other in zip(scores, expected[1], strict=True)
    )


async def ask(client: httpx.AsyncClient, url: str, name: str, tokens: int = TOKENS) -> tuple[int, Says]:
    """One streamed completion: status and what was said. Raises: AssertionError when it was cut off."""
    body: dict[str, Any] = {"model": name, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "logprobs": 0}
    options = {"stream": True, "return_token_ids": True, "ignore_eos": True}
    said: Says = ([], [])
    reason = None
    async with client.stream("POST", f"{url}/v1/completions", json={**body, **options}) as answer:
        if answer.status_code != 200:
            await answer.aread()
            return answer.status_code, said
        last = ""
        async for line in answer.aiter_lines():
            last = line or last
            if line.startswith("data: {"):
                chunk = json.loads(line[6:])
                assert chunk["model"] == name, chunk
                choice = chunk["choices"][0]
                said[0].extend(choice["token_ids"])
                said[1].extend(choice["logprobs"]["token_logprobs"])
                reason = choice["finish_reason"] or reason
    assert (last, reason, len(said[0])) == ("data: [DONE]", "length", tokens), "the stream was cut off"
    return 200, said
