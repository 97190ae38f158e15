"""What serving pods say about their adapters, remembered for as long as the container lives that said it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codetune_api.contracts import ServerReport

from codetune_operator.cluster.pushing import fetch_reports
from codetune_operator.reconcile.modeldeployment.pods import base_url, can_answer
from codetune_operator.reconcile.workloads import container_entry
from codetune_operator.resources.modeldeployment.names import CONTAINER

Obj = dict[str, Any]
Answer = ServerReport | str

FRESH_SECONDS = 55.0
"""Age from which on a report is asked for again."""


@dataclass(frozen=True)
class _Heard:
    container: str
    answer: Answer
    time: float


class ServingReports:
    """The last report of every serving pod; used from the event loop only."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heard: dict[tuple[str, str], _Heard] = {}

    async def collect(self, namespace: str, pods: Sequence[Obj], token: str) -> Mapping[str, Answer]:
        """Pod name → report, for pods that can answer; those not heard of lately are asked."""
        ids = {pod["metadata"]["name"]: _identity(pod) for pod in pods if can_answer(pod)}
        urls = {pod["metadata"]["name"]: base_url(pod) for pod in pods if can_answer(pod)}
        stale = {name: urls[name] for name, identity in ids.items() if not self._is_fresh(namespace, name, identity)}
        if stale:
            self._store(namespace, await fetch_reports(stale, token=token), ids)
        return {name: self._heard[namespace, name].answer for name in ids}

    def record(self, namespace: str, answers: Mapping[str, Answer], pods: Sequence[Obj]) -> bool:
        """Remember what pods just said. Returns: whether any of it is new."""
        known = {name: self._heard.get((namespace, name)) for name in answers}
        self._store(namespace, answers, {pod["metadata"]["name"]: _identity(pod) for pod in pods})
        return any(heard is None or heard.answer != answers[name] for name, heard in known.items())

    def forget(self, namespace: str, pod: str) -> None:
        """The pod is gone."""
        self._heard.pop((namespace, pod), None)

    def _is_fresh(self, namespace: str, name: str, identity: str) -> bool:
        heard = self._heard.get((namespace, name))
        return heard is not None and heard.container == identity and self._clock() - heard.time < FRESH_SECONDS

    def _store(self, namespace: str, answers: Mapping[str, Answer], ids: Mapping[str, str]) -> None:
        for name, answer in answers.items():
            self._heard[namespace, name] = _Heard(ids.get(name, ""), answer, self._clock())


def _identity(pod: Obj) -> str:
    """Another one after each restart of the container: it has loaded what it found at its start."""
    entry = container_entry(pod, CONTAINER)
    return f"{pod['metadata']['uid']}/{entry.get('containerID', '')}/{entry.get('restartCount', 0)}"
