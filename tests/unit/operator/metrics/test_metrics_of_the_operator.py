"""What the operator counts of its own work."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.kinds import kind_at
from codetune_operator.errors import ConflictError, ForbiddenError, OperatorError, TemporaryError
from codetune_operator.handlers.keys import Key, store_key
from codetune_operator.handlers.storing import Store
from codetune_operator.metrics.counting import Counts
from kubernetes.client import ApiClient, Configuration
from prometheus_client import CollectorRegistry

if TYPE_CHECKING:
    from unit.operator.conftest import Api

Obj = dict[str, Any]
RUN = Key("FineTune", "ns", "mine")
CREATED, NOW = "2026-01-01T00:00:00Z", datetime(2026, 1, 1, 0, 0, 42, tzinfo=UTC)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def counts(registry: CollectorRegistry) -> Counts:
    return Counts(registry)


OUTCOMES = [
    pytest.param("success", None, id="a look that ends well"),
    pytest.param("conflict", ConflictError("changed"), id="somebody wrote meanwhile"),
    pytest.param("error", TemporaryError("the server rests"), id="the API server can't be reached"),
    pytest.param("error", KeyError("bug"), id="a mistake of ours"),
]


@pytest.mark.parametrize(("outcome", "error"), OUTCOMES)
@pytest.mark.parametrize("key", [Key("Project", "ns", "a"), store_key("ns")], ids=lambda key: key.kind)
async def test_each_look_is_counted_by_its_outcome(
    outcome: str, error: Exception | None, key: Key, counts: Counts, registry: CollectorRegistry
) -> None:
    async def look(_: Key) -> float | None:
        if error is not None:
            raise error
        return 60.0

    counted = counts.watch(look, Store())
    if error is None:
        assert await counted(key) == 60.0
    else:
        with pytest.raises(type(error)):
            await counted(key)

    found = {
        name: registry.get_sample_value("codetune_reconcile_total", {"kind": key.kind, "outcome": name})
        for name in ("success", "conflict", "error")
    }
    assert found == {"success": 0, "conflict": 0, "error": 0, outcome: 1}
    assert registry.get_sample_value("codetune_reconcile_seconds_count", {"kind": key.kind}) == 1


def make_run(version: int, **status: str) -> Obj:
    metadata = {
        "namespace": "ns",
        "name": "mine",
        "uid": "u",
        "resourceVersion": str(version),
        "creationTimestamp": CREATED,
    }
    return {"kind": "FineTune", "metadata": metadata, "status": status}


WRITES = [
    pytest.param((1, 42), [{}, {"jobName": "mine-1"}], id="its first Job"),
    pytest.param((0, 0), [{}, {}], id="still none"),
    pytest.param((0, 0), [{"jobName": "mine-1"}, {"jobName": "mine-2"}], id="another Job after it"),
    pytest.param((1, 42), [{}, {"jobName": "mine-1"}, {"jobName": "mine-1"}], id="looked at again"),
]


@pytest.mark.parametrize(("expected", "statuses"), WRITES)
async def test_the_time_from_a_finetune_to_its_first_job_is_told_once(
    expected: tuple[int, float], statuses: list[dict[str, str]], counts: Counts, registry: CollectorRegistry
) -> None:
    store = Store()
    store.put(make_run(1, **statuses[0]))
    coming = iter(enumerate(statuses[1:], start=2))

    async def look(_: Key) -> None:
        version, status = next(coming)
        store.put(make_run(version, **status))

    counted = counts.watch(look, store, now=lambda: NOW)
    for _ in statuses[1:]:
        await counted(RUN)

    name = "codetune_finetune_job_delay_seconds"
    assert (registry.get_sample_value(f"{name}_count"), registry.get_sample_value(f"{name}_sum")) == expected


async def test_a_job_whose_look_fails_later_on_is_told_all_the_same(
    counts: Counts, registry: CollectorRegistry
) -> None:
    store = Store()
    store.put(make_run(1))

    async def look(_: Key) -> None:
        store.put(make_run(2, jobName="mine-1"))
        raise TemporaryError("the Event")

    with pytest.raises(TemporaryError):
        await counts.watch(look, store)(RUN)
    assert registry.get_sample_value("codetune_finetune_job_delay_seconds_count") == 1


PATHS = [
    pytest.param("Pod", "/api/v1/namespaces/ns/pods/p/log", id="a subresource"),
    pytest.param("FineTune", "/apis/codetune.dev/v1alpha1/namespaces/ns/finetunes/f/status", id="a resource's status"),
    pytest.param("Job", "/apis/batch/v1/jobs", id="of all namespaces"),
    pytest.param("Node", "/api/v1/nodes", id="of no namespace"),
    pytest.param("Namespace", "/api/v1/namespaces/ns", id="a namespace"),
    pytest.param("Namespace", "/api/v1/namespaces", id="all namespaces"),
    pytest.param("Lease", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l", id="the Lease"),
    pytest.param(None, "/apis/example.org/v1/things/secret-name", id="nothing of ours"),
    pytest.param(None, "/version", id="no object at all"),
]


@pytest.mark.parametrize(("expected", "path"), PATHS)
def test_a_request_is_about_the_kind_in_its_path(expected: str | None, path: str) -> None:
    found = kind_at(path)
    assert (found.name if found else None) == expected


def requests(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    (metric,) = [found for found in registry.collect() if found.name == "codetune_api_requests"]
    samples = [sample for sample in metric.samples if sample.name.endswith("_total")]
    return {(s.labels["method"], s.labels["kind"], s.labels["code"]): s.value for s in samples}


async def test_requests_are_counted_by_method_kind_and_answer(
    api: "Api", counts: Counts, registry: CollectorRegistry
) -> None:
    cluster = Cluster(api.connect().api, counts.count_request)
    api.answers["GET", "/api/v1/nodes"] = (200, {})
    api.answers["PATCH", "/api/v1/namespaces/ns/secrets/s"] = (403, {})
    cluster.send("GET", "/api/v1/nodes")
    cluster.send("GET", "/api/v1/nodes")
    with pytest.raises(ForbiddenError):
        cluster.send("PATCH", "/api/v1/namespaces/ns/secrets/s", body={})
    with pytest.raises(OperatorError):
        cluster.stream("/api/v1/namespaces/ns/pods/p/log", [], read_seconds=1)

    expected = {("GET", "Node", "200"): 2, ("PATCH", "Secret", "403"): 1, ("GET", "Pod", "404"): 1}
    assert requests(registry) == expected


async def test_a_request_that_nobody_answers_is_counted_too(counts: Counts, registry: CollectorRegistry) -> None:
    nobody = Cluster(ApiClient(Configuration(host="http://127.0.0.1:1")), counts.count_request)
    with pytest.raises(TemporaryError):
        nobody.send("GET", "/api/v1/nodes")
    assert requests(registry) == {("GET", "Node", "none"): 1}
