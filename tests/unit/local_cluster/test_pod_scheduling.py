"""Whether a pod fits the node, and how it is said when it does not."""

from decimal import Decimal
from typing import Any

import pytest
from codetune_local.kubelet.addressing import POD_NETWORK, AddressPool
from codetune_local.kubelet.devices import CorePool, choose_gpus
from codetune_local.kubelet.scheduling import find_claim_problem, find_misfits, requested_amounts, say_misfits
from codetune_local.machinery.quantities import parse_quantity

Obj = dict[str, Any]


def node(**more: Any) -> Obj:
    allocatable = {"cpu": "4", "memory": "8Gi", "pods": "10", "nvidia.com/gpu": "1"}
    metadata = {"name": "local", "labels": {"zone": "a", "cores": "4"}}
    return {"metadata": metadata, "spec": more, "status": {"allocatable": allocatable}}


def pod(requests: Obj | None = None, phase: str = "Pending", **spec: Any) -> Obj:
    container = {"name": "main", "resources": {"requests": requests or {}}}
    return {"metadata": {"name": "p"}, "spec": {"containers": [container], **spec}, "status": {"phase": phase}}


def affinity(operator: str, *values: str, key: str = "cores") -> Obj:
    terms = [{"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


BUSY = pod({"cpu": "3", "nvidia.com/gpu": "1"}, phase="Running")


@pytest.mark.parametrize(
    ("reasons", "asks", "others"),
    [
        pytest.param([], pod(), [], id="asks for nothing"),
        pytest.param([], pod({"cpu": "4", "memory": "8Gi"}), [], id="all there is"),
        pytest.param(["Insufficient cpu"], pod({"cpu": "4001m"}), [], id="a little more"),
        pytest.param(["Insufficient memory"], pod({"memory": "9Gi"}), [], id="memory"),
        pytest.param(["Insufficient nvidia.com/gpu"], pod({"nvidia.com/gpu": "64"}), [], id="64 gpus"),
        pytest.param(["Insufficient example.com/fpga"], pod({"example.com/fpga": "1"}), [], id="unheard of"),
        pytest.param(
            ["Insufficient cpu", "Insufficient nvidia.com/gpu"],
            pod({"cpu": "2", "nvidia.com/gpu": "1"}),
            [BUSY],
            id="taken",
        ),
        pytest.param([], pod({"cpu": "2"}), [pod({"cpu": "3"}, phase="Succeeded")], id="what is over takes nothing"),
        pytest.param(["Too many pods"], pod(), [pod()] * 10, id="too many pods"),
        pytest.param(
            ["node(s) didn't match Pod's node affinity/selector"], pod(nodeSelector={"zone": "b"}), [], id="selector"
        ),
        pytest.param([], pod(nodeSelector={"zone": "a"}), [], id="selector that fits"),
        pytest.param([], pod(affinity=affinity("Gt", "3")), [], id="affinity"),
        pytest.param(
            ["node(s) didn't match Pod's node affinity/selector"],
            pod(affinity=affinity("Lt", "4")),
            [],
            id="affinity not",
        ),
    ],
)
def test_a_pod_fits_or_the_reasons_are_listed(reasons: list[str], asks: Obj, others: list[Obj]) -> None:
    assert find_misfits(asks, node(), others) == reasons


TAINT = {"key": "gpu", "value": "only", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("fits", "spec", "tolerations"),
    [
        pytest.param(False, {"unschedulable": True}, [], id="cordoned"),
        pytest.param(False, {"taints": [TAINT]}, [], id="tainted"),
        pytest.param(True, {"taints": [TAINT]}, [{"key": "gpu", "operator": "Exists"}], id="tolerated by key"),
        pytest.param(
            True, {"taints": [TAINT]}, [{"key": "gpu", "value": "only", "effect": "NoSchedule"}], id="by value"
        ),
        pytest.param(False, {"taints": [TAINT]}, [{"key": "gpu", "value": "other"}], id="another value"),
        pytest.param(True, {"taints": [{**TAINT, "effect": "PreferNoSchedule"}]}, [], id="only preferred"),
    ],
)
def test_taints_keep_away_who_does_not_tolerate_them(fits: bool, spec: Obj, tolerations: list[Obj]) -> None:
    assert (not find_misfits(pod(tolerations=tolerations), node(**spec), [])) is fits


def test_the_message_is_that_of_the_real_scheduler() -> None:
    reasons = ["Insufficient nvidia.com/gpu", "Insufficient cpu"]
    assert say_misfits(reasons) == "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient nvidia.com/gpu."


@pytest.mark.parametrize(
    ("message", "claims"),
    [
        pytest.param('persistentvolumeclaim "data" not found', {}, id="missing"),
        pytest.param(
            "unbound immediate PersistentVolumeClaims",
            {"data": {"metadata": {}, "status": {"phase": "Pending"}}},
            id="unbound",
        ),
        pytest.param("is being deleted", {"data": {"metadata": {"deletionTimestamp": "x"}}}, id="going"),
        pytest.param(None, {"data": {"metadata": {}, "status": {"phase": "Bound"}}}, id="bound"),
    ],
)
def test_claims_must_be_bound(message: str | None, claims: Obj) -> None:
    wants = pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])
    problem = find_claim_problem(wants, claims)
    assert problem is None if message is None else problem is not None and message in problem


def test_init_containers_count_by_their_peak_and_sidecars_add_up() -> None:
    def asks(name: str, cpu: str, **more: Any) -> Obj:
        return {"name": name, "resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "initContainers": [asks("setup", "5"), asks("proxy", "1", restartPolicy="Always"), asks("late", "2")],
        "containers": [asks("a", "1"), asks("b", "1")],
    }
    assert requested_amounts({"spec": spec}) == {"cpu": Decimal(5)}
    spec["initContainers"][0] = asks("setup", "1")
    assert requested_amounts({"spec": spec}) == {"cpu": Decimal(3)}


def test_limits_stand_in_for_requests_that_are_not_given() -> None:
    container = {"name": "a", "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}}
    assert requested_amounts({"spec": {"containers": [container]}}) == {"cpu": Decimal(1), "memory": Decimal(2**30)}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0.5", "500m"),
        ("1", 1),
        ("1024", "1Ki"),
        ("1000", "1k"),
        ("1000000000000000000", "1E"),
        ("1000", "1e3"),
        ("2.5", "2.5"),
    ],
)
def test_quantities_are_exact(number: str, text: str | int) -> None:
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "many", "1Xi", "Gi"])
def test_a_quantity_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number with an optional suffix"):
        parse_quantity(text)


def test_gpus_are_given_to_one_pod_at_a_time() -> None:
    assert choose_gpus(2, {0, 2}) == (1, 3)
    assert choose_gpus(0, {0}) == ()


def test_cores_are_spread_and_a_limit_is_rounded_up() -> None:
    pool = CorePool([0, 1, 2, 3])
    assert pool.take(Decimal("1.5")) == (0, 1)
    assert pool.take(Decimal(2)) == (2, 3)
    pool.give_back((0, 1))
    assert pool.take(Decimal(1)) == (0,)
    assert pool.take(None) == ()
    assert pool.take(Decimal(4)) == (), "all cores are no limit"


def test_addresses_are_not_given_twice_and_not_again_soon(tmp_path: Any) -> None:
    pool = AddressPool(POD_NETWORK, tmp_path / "pool.json")
    first, second = pool.take(()), pool.take(())
    assert first != second
    again = AddressPool(POD_NETWORK, tmp_path / "pool.json")
    assert again.take({second}) not in (first, second)
