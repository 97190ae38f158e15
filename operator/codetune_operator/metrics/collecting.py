"""How things stand at the moment of a scrape. Pure: a snapshot in, metrics out; nothing is kept for the next one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from codetune_operator.cluster.kinds import FINETUNE, MODELDEPLOYMENT, PROJECT, TEAM
from codetune_operator.handlers.queueing import QueueCounts
from codetune_operator.metrics.counting import COUNTED
from codetune_operator.metrics.everyone import EVERYONE
from codetune_operator.metrics.families import Family
from codetune_operator.metrics.finetunes import FINETUNES
from codetune_operator.metrics.modeldeployments import MODELDEPLOYMENTS
from codetune_operator.metrics.projects import PROJECTS
from codetune_operator.metrics.series import Obj, Series
from codetune_operator.metrics.teams import TEAMS

INFO = Family("codetune_operator_info", "gauge", ("version",), "1, for the version that runs.")
LEADING = Family(
    "codetune_operator_leading",
    "gauge",
    (),
    "1 where this operator reconciles; 0 where it stands by for the Lease, or has not yet read what is there.",
)
WATCHED = Family(
    "codetune_operator_namespace_watched",
    "gauge",
    ("namespace",),
    "1 where a namespace of watchNamespaces is watched; 0 where it is left out, for lack of a right in it.",
)
DEPTH = Family(
    "codetune_queue_depth", "gauge", (), "Looks that are due and wait until one that is under way has ended."
)
WORKING = Family("codetune_queue_working", "gauge", (), "Looks that are under way.")
RETRYING = Family("codetune_queue_retrying", "gauge", (), "Resources whose last look ended in an error.")

_OF_A_KIND: Mapping[str, tuple[Series, ...]] = {
    PROJECT.name: PROJECTS,
    FINETUNE.name: FINETUNES,
    MODELDEPLOYMENT.name: MODELDEPLOYMENTS,
    TEAM.name: TEAMS,
}
CATALOGUE: tuple[Family, ...] = (
    *(INFO, LEADING, WATCHED, DEPTH, WORKING, RETRYING),
    *COUNTED,
    *(series.family for series in EVERYONE),
    *(series.family for some in _OF_A_KIND.values() for series in some),
)
"""Every metric of the operator that is its own."""


@dataclass(frozen=True)
class Snapshot:
    """What there is to tell of at one moment; without a queue the operator does not reconcile."""

    queue: QueueCounts | None = None
    objects: Mapping[str, tuple[Obj, ...]] = field(default_factory=dict)
    """Kind → its resources."""
    namespaces: Mapping[str, bool] = field(default_factory=dict)
    """Named namespaces, and whether they are watched."""


class SnapshotCollector(Collector):
    """Tells Prometheus' library of a snapshot that is taken for each scrape."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take

    def collect(self) -> Iterable[Metric]:
        """What the library calls at each scrape."""
        snapshot = self._take()
        return [*tell_operator(snapshot), *tell_resources(snapshot.objects)]

    def describe(self) -> Iterable[Metric]:
        """What the library calls once, to know the names."""
        return [family.collect() for family in CATALOGUE if family not in COUNTED]


def tell_operator(snapshot: Snapshot) -> Iterator[Metric]:
    """How the operator itself is."""
    queue = snapshot.queue
    yield _gauge(INFO, 1.0, version("codetune-operator"))
    yield _gauge(LEADING, float(queue is not None))
    watched = WATCHED.collect()
    for namespace, is_watched in snapshot.namespaces.items():
        watched.add_metric((namespace,), float(is_watched))
    yield watched
    if queue is not None:
        yield _gauge(DEPTH, queue.waiting)
        yield _gauge(WORKING, queue.working)
        yield _gauge(RETRYING, queue.retrying)


def tell_resources(objects: Mapping[str, tuple[Obj, ...]]) -> Iterator[Metric]:
    """How the resources are, metric by metric."""
    for series in EVERYONE:
        told = series.family.collect()
        for kind, found in objects.items():
            _add(told, series, found, (kind,))
        yield told
    for kind, some in _OF_A_KIND.items():
        for series in some:
            told = series.family.collect()
            _add(told, series, objects.get(kind, ()), ())
            yield told


def _add(
    told: CounterMetricFamily | GaugeMetricFamily, series: Series, objects: Iterable[Obj], kind: tuple[str, ...]
) -> None:
    for obj in objects:
        metadata = obj["metadata"]
        try:
            values = tuple(series.read(obj))
        except (AttributeError, KeyError, TypeError, ValueError):
            # A status that another version of its CRD let in must not cost all others their metrics.
            continue
        for labels, value in values:
            told.add_metric((*kind, metadata["namespace"], metadata["name"], *labels), value)


def _gauge(family: Family, value: float, *labels: str) -> Metric:
    told = family.collect()
    told.add_metric(labels, value)
    return told
