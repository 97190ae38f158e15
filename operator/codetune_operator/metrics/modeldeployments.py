"""What ModelDeployments tell besides what every resource does. Pure."""

from collections import Counter

from codetune_api.modeldeployment import AdapterState

from codetune_operator.metrics.families import RESOURCE, Family
from codetune_operator.metrics.series import Obj, Series, Values, measure, words_of

_PHASES = words_of(AdapterState, "phase")


def _read_adapters(obj: Obj) -> Values:
    counts = Counter(entry["phase"] for entry in (obj.get("status") or {}).get("adapters") or ())
    return [((phase,), float(counts[phase])) for phase in _PHASES]


MODELDEPLOYMENTS = (
    measure(
        "codetune_modeldeployment_spec_replicas",
        *("spec", "replicas"),
        help="Pods that are asked for, by a person or an autoscaler.",
    ),
    measure(
        "codetune_modeldeployment_status_replicas_ready",
        *("status", "readyReplicas"),
        help="Pods that serve: with the model and every adapter loaded.",
    ),
    Series(
        Family(
            "codetune_modeldeployment_adapters",
            "gauge",
            (*RESOURCE, "phase"),
            "Adapters in each phase.",
        ),
        _read_adapters,
    ),
)
