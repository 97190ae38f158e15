"""Whether a pod fits the node, and in which words it does not. Pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from codetune_local.machinery.objects import Obj, labels_of, selects
from codetune_local.machinery.quantities import Amounts, add_amounts, largest_amounts, parse_amounts

FINAL_PHASES = ("Succeeded", "Failed")


def requested_amounts(pod: Obj) -> Amounts:
    """What a pod takes from its node: the containers together, or the largest init container; sidecars add up."""
    spec = pod["spec"]
    inits = spec.get("initContainers") or []
    sidecars = add_amounts(_container(found) for found in inits if found.get("restartPolicy") == "Always")
    together = add_amounts([sidecars, *(_container(found) for found in spec["containers"])])
    peaks = []
    running: Amounts = {}
    for found in inits:
        if found.get("restartPolicy") == "Always":
            running = add_amounts([running, _container(found)])
        peaks.append(add_amounts([running, _container(found)]) if found.get("restartPolicy") != "Always" else running)
    overhead = parse_amounts(spec.get("overhead"))
    return add_amounts([largest_amounts([together, *peaks]), overhead])


def _container(container: Obj) -> Amounts:
    resources = container.get("resources") or {}
    return parse_amounts({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def find_misfits(pod: Obj, node: Obj, others: Iterable[Obj]) -> list[str]:
    """Why the pod can't run on the node now; empty: it fits.

    Args:
        others: The pods that are bound to the node; those that are over take nothing.
    """
    spec, node_spec = pod["spec"], node.get("spec") or {}
    tolerations = spec.get("tolerations") or []
    if node_spec.get("unschedulable") and not _tolerates(tolerations, _CORDON):
        return ["node(s) were unschedulable"]
    for taint in node_spec.get("taints") or []:
        if taint["effect"] in ("NoSchedule", "NoExecute") and not _tolerates(tolerations, taint):
            return [f"node(s) had untolerated taint(s) {{{taint['key']}: {taint.get('value', '')}}}"]
    if not matches_node(spec, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    return _lacking(requested_amounts(pod), node, others)


_CORDON = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


def _lacking(asked: Amounts, node: Obj, others: Iterable[Obj]) -> list[str]:
    bound = [other for other in others if (other.get("status") or {}).get("phase") not in FINAL_PHASES]
    used = add_amounts(requested_amounts(other) for other in bound)
    allocatable = parse_amounts((node.get("status") or {}).get("allocatable"))
    reasons = ["Too many pods"] if len(bound) + 1 > allocatable.get("pods", Decimal(0)) else []
    for name, amount in sorted(asked.items()):
        if amount and amount > allocatable.get(name, Decimal(0)) - used.get(name, Decimal(0)):
            reasons.append(f"Insufficient {name}")
    return reasons


def _tolerates(tolerations: list[Obj], taint: Mapping[str, str]) -> bool:
    return any(_matches_taint(toleration, taint) for toleration in tolerations)


def _matches_taint(toleration: Obj, taint: Mapping[str, str]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", "")


def matches_node(spec: Obj, node: Obj) -> bool:
    """nodeName-free placement rules: nodeSelector and required node affinity."""
    labels = labels_of(node)
    if not selects({"matchLabels": spec.get("nodeSelector") or {}}, labels):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(_matches_term(term, node, labels) for term in required["nodeSelectorTerms"])


def _matches_term(term: Obj, node: Obj, labels: Mapping[str, str]) -> bool:
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    names = {"metadata.name": node["metadata"]["name"]}
    return all(_meets(found, labels) for found in expressions) and all(_meets(found, names) for found in fields)


def _meets(requirement: Obj, labels: Mapping[str, str]) -> bool:
    if requirement["operator"] not in ("Gt", "Lt"):
        return selects({"matchExpressions": [requirement]}, labels)
    value = labels.get(requirement["key"], "")
    if not value.lstrip("-").isdecimal():
        return False
    bound = int(requirement["values"][0])
    return int(value) > bound if requirement["operator"] == "Gt" else int(value) < bound


def say_misfits(reasons: list[str]) -> str:
    """The scheduler's message when the only node does not take a pod."""
    return f"0/1 nodes are available: {', '.join(f'1 {reason}' for reason in sorted(reasons))}."


def find_claim_problem(pod: Obj, claims: Mapping[str, Obj]) -> str | None:
    """Why the pod's claims keep it from running: one is missing, going away or not bound."""
    names = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes") or []
        if "persistentVolumeClaim" in volume
    ]
    for name in names:
        claim = claims.get(name)
        if claim is None:
            return f'0/1 nodes are available: persistentvolumeclaim "{name}" not found.'
        if claim["metadata"].get("deletionTimestamp"):
            return f'0/1 nodes are available: persistentvolumeclaim "{name}" is being deleted.'
        if (claim.get("status") or {}).get("phase") != "Bound":
            return "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    return None
