"""Which serving pods can be spoken to, and where. Pure."""

from codetune_operator.reconcile.plan import Obj
from codetune_operator.reconcile.workloads import container_entry, container_state
from codetune_operator.resources.modeldeployment.names import CONTAINER, PORT
from codetune_operator.resources.models import FETCH_CONTAINER


def can_answer(pod: Obj) -> bool:
    """vLLM answers from the moment on that the startup probe has passed."""
    if pod["metadata"].get("deletionTimestamp") or not pod.get("status", {}).get("podIP"):
        return False
    entry = container_entry(pod, CONTAINER)
    return "running" in entry.get("state", {}) and bool(entry.get("started"))


def is_fetching(pod: Obj) -> bool:
    """Whether it brings the base model into the store."""
    return "running" in container_state(pod, FETCH_CONTAINER) and not pod["metadata"].get("deletionTimestamp")


def base_url(pod: Obj) -> str:
    """Where the pod's server answers."""
    address = pod["status"]["podIP"]
    return f"http://[{address}]:{PORT}" if ":" in address else f"http://{address}:{PORT}"
