"""The status that kstatus computes of an object: what Flux goes by.

The rules, from kstatus's own documentation: a deletion timestamp means Terminating; an observedGeneration that lags
means InProgress; Reconciling that is True means InProgress and Stalled that is True means Failed; else Ready decides:
True is Current, False and Unknown are InProgress. An object that has no Ready is Current.
"""

from typing import Any

Obj = dict[str, Any]


def kstatus(obj: Obj) -> str:
    """The status that kstatus computes of an object."""
    metadata, status = obj["metadata"], obj.get("status", {})
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    if "observedGeneration" in status and status["observedGeneration"] != metadata["generation"]:
        return "InProgress"
    conditions = status.get("conditions", [])
    for condition in conditions:
        if condition["type"] == "Reconciling" and condition["status"] == "True":
            return "InProgress"
        if condition["type"] == "Stalled" and condition["status"] == "True":
            return "Failed"
    ready = [condition["status"] for condition in conditions if condition["type"] == "Ready"]
    return "Current" if ready in ([], ["True"]) else "InProgress"
