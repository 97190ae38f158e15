"""Why no node takes a pod: what it asks for, what the nodes have, and what to change. Pure."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from codetune_api.common import Failure

from codetune_operator.reconcile.plan import Obj
from codetune_operator.reconcile.quantities import Amounts, largest_amounts, read_amounts, say_amount, sum_amounts

_MISSING_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_NAMED = 3
"""How many nodes a sentence names."""
_STORAGE = ("unbound immediate PersistentVolumeClaims", "binding volumes:")
"""What the scheduler says of claims that are bound at once, and of those that are bound for their first pod."""


def is_about_storage(scheduler_message: str) -> bool:
    """Whether a pod waits for nothing but claims that are not bound."""
    return any(words in scheduler_message for words in _STORAGE)


def explain_unschedulable(pod: Obj, scheduler_message: str, nodes: Sequence[Obj]) -> Failure:
    """The failure of a pod whose condition PodScheduled is False.

    Args:
        pod: The pod.
        scheduler_message: What the scheduler wrote on the condition.
        nodes: Node objects; empty when the operator may not see them.
    """
    said = scheduler_message.rstrip(". ")
    claim = _MISSING_CLAIM.search(scheduler_message)
    if claim:
        hint = f"Create the PersistentVolumeClaim {claim.group(1)} in this namespace, or correct its name."
        return _failure(f"The pod cannot start: the claim {claim.group(1)!r} does not exist.", hint)
    if is_about_storage(scheduler_message):
        hint = "Run `kubectl describe pvc` in this namespace; most often its storage class is missing or has no room."
        return _failure(f"The pod waits for storage: {said}.", hint)

    asked = requested_amounts(pod)
    usable = [read_amounts(node.get("status", {}).get("allocatable")) for node in nodes if _is_usable(node)]
    what = ", ".join(say_amount(name, amount) for name, amount in sorted(asked.items(), key=_accelerators_first))
    asks = f"The pod asks for {what or 'no particular resources'}"
    if not usable and (cordoned := [node["metadata"]["name"] for node in nodes if _is_ready(node)]):
        names = ", ".join(cordoned[:_NAMED]) + (", …" if len(cordoned) > _NAMED else "")
        hint = "`kubectl uncordon NODE` lets pods in again, or add a node that fits. It then starts by itself."
        return _failure(f"{asks}; every ready node is cordoned: {names}. The scheduler says: {said}.", hint)
    if not usable:
        have = "; there is no ready node" if nodes else ""
        return _failure(f"{asks}{have}. The scheduler says: {said}.", _TRY_LESS)
    largest = largest_amounts(usable)
    lacking = {name: amount for name, amount in asked.items() if amount > largest.get(name, Decimal(0))}
    message = f"{asks}; {_say_nodes(asked, usable)}. The scheduler says: {said}."
    return _failure(message, _hint_lower(lacking, largest) if lacking else _HINT_BUSY)


def requested_amounts(pod: Obj) -> Amounts:
    """What the scheduler must find on one node: all containers together, or the largest init container."""
    spec = pod.get("spec", {})
    together = sum_amounts(_container_requests(container) for container in spec.get("containers", []))
    at_start = [_container_requests(container) for container in spec.get("initContainers", [])]
    return {name: amount for name, amount in largest_amounts([together, *at_start]).items() if amount > 0}


_TRY_LESS = "Add a node that fits, or ask for less in spec.resources and spec.scheduling; it then starts by itself."
_HINT_BUSY = (
    "Each amount fits on some node, so the nodes are busy, tainted, or excluded by spec.scheduling: wait for others to "
    "finish, or change nodeSelector, tolerations or resources. It starts by itself as soon as there is room."
)
_FIELDS = {"cpu": "spec.resources.cpu", "memory": "spec.resources.memory"}


def _failure(message: str, hint: str) -> Failure:
    return Failure(reason="Unschedulable", message=message[:2000], hint=hint[:2000])


def _container_requests(container: dict[str, Any]) -> Amounts:
    resources = container.get("resources") or {}
    return read_amounts({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _is_usable(node: Obj) -> bool:
    return _is_ready(node) and not node.get("spec", {}).get("unschedulable", False)


def _is_ready(node: Obj) -> bool:
    conditions = {entry["type"]: entry["status"] for entry in node.get("status", {}).get("conditions", [])}
    return bool(conditions.get("Ready", "True") == "True")


def _accelerators_first(item: tuple[str, Decimal]) -> tuple[bool, str]:
    return ("/" not in item[0], item[0])


def _say_nodes(asked: Amounts, usable: Sequence[Amounts]) -> str:
    largest, total = largest_amounts(usable), sum_amounts(usable)
    names = sorted(asked, key=lambda name: _accelerators_first((name, Decimal(0))))
    zero = Decimal(0)
    if len(usable) == 1:
        return "the only ready node has " + ", ".join(say_amount(name, largest.get(name, zero)) for name in names)
    parts = (
        f"{say_amount(name, largest.get(name, zero))} at most on one node ({say_amount(name, total.get(name, zero))}"
        " together)"
        for name in names
    )
    return f"the {len(usable)} ready nodes have " + ", ".join(parts)


def _hint_lower(lacking: Amounts, largest: Amounts) -> str:
    parts = []
    for name in sorted(lacking, key=lambda name: _accelerators_first((name, Decimal(0)))):
        field = _FIELDS.get(name, "spec.resources.gpus")
        most = largest.get(name, Decimal(0))
        if most > 0 or field != "spec.resources.gpus":
            parts.append(f"set {field} so that the pod asks for at most {say_amount(name, most)}")
        else:
            parts.append(f"no ready node offers {name}: set {field} to 0 to run on CPU, or check the device plugin")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}; or add a node that fits. It then starts by itself."
