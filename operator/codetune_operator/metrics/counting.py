"""What the operator does, counted as it happens."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram

from codetune_operator.cluster.kinds import FINETUNE, kind_at
from codetune_operator.errors import ConflictError
from codetune_operator.handlers.keys import STORE, Key
from codetune_operator.handlers.queueing import Look
from codetune_operator.handlers.storing import Obj, Store
from codetune_operator.handlers.waking import RECONCILED
from codetune_operator.metrics.families import Family
from codetune_operator.metrics.series import find
from codetune_operator.reconcile.durations import parse_time

RECONCILES = Family(
    "codetune_reconcile_total",
    "counter",
    ("kind", "outcome"),
    "Looks at resources: success; conflict, where somebody wrote meanwhile and the next look comes soon; error, which "
    "the log tells and which is tried again later. What the API server refuses for good is told on the resource, "
    "Stalled, and is a success here.",
)
RECONCILE_SECONDS = Family(
    "codetune_reconcile_seconds", "histogram", ("kind",), "How long a look at a resource took, its writes included."
)
REQUESTS = Family(
    "codetune_api_requests_total",
    "counter",
    ("method", "kind", "code"),
    "Requests to the API server but for the watches; the code is none where no answer came.",
)
JOB_SECONDS = Family(
    "codetune_finetune_job_delay_seconds",
    "histogram",
    (),
    "From a FineTune's creation to its Job, what it waited for its Project's data included.",
)
COUNTED = (RECONCILES, RECONCILE_SECONDS, REQUESTS, JOB_SECONDS)

_OUTCOMES = ("success", "conflict", "error")
_LOOK_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_JOB_BUCKETS = (1, 2, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)


class Counts:
    """The counters; they may be used from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._looks = Counter(RECONCILES.name, RECONCILES.help, RECONCILES.labels, registry=registry)
        self._seconds = Histogram(
            RECONCILE_SECONDS.name,
            RECONCILE_SECONDS.help,
            RECONCILE_SECONDS.labels,
            buckets=_LOOK_BUCKETS,
            registry=registry,
        )
        self._requests = Counter(REQUESTS.name, REQUESTS.help, REQUESTS.labels, registry=registry)
        self._jobs = Histogram(JOB_SECONDS.name, JOB_SECONDS.help, buckets=_JOB_BUCKETS, registry=registry)
        # From zero on, so that the first error is an increase and not a series that begins at one.
        for kind in (*(kind.name for kind in RECONCILED), STORE):
            for outcome in _OUTCOMES:
                self._looks.labels(kind, outcome)

    def count_request(self, method: str, path: str, status: int | None) -> None:
        """A request to the API server was answered with this status, or not at all."""
        kind = kind_at(path)
        self._requests.labels(method, kind.name if kind else "other", "none" if status is None else str(status)).inc()

    def watch(self, look: Look, store: Store, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Look:
        """The same look, counted."""

        async def counted(key: Key) -> float | None:
            begun, had_job, outcome = time.perf_counter(), _has_job(_see(key, store)), "error"
            try:
                after = await look(key)
                outcome = "success"
                return after
            except ConflictError:
                outcome = "conflict"
                raise
            finally:
                self._looks.labels(key.kind, outcome).inc()
                self._seconds.labels(key.kind).observe(time.perf_counter() - begun)
                seen = _see(key, store)
                if seen is not None and not had_job and _has_job(seen):
                    created = parse_time(seen["metadata"]["creationTimestamp"])
                    self._jobs.observe(max(0.0, (now() - created).total_seconds()))

        return counted


def _see(key: Key, store: Store) -> Obj | None:
    """The FineTune that a look is about."""
    return store.get(FINETUNE, key.namespace, key.name) if key.kind == FINETUNE.name else None


def _has_job(finetune: Obj | None) -> bool:
    return finetune is not None and bool(find(finetune, "status", "jobName"))
