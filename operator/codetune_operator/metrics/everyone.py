"""What resources of every kind tell: since when they are there, conditions, phase and what failed. Pure."""

from collections.abc import Mapping

from codetune_api.finetunestatus import FineTuneStatus
from codetune_api.modeldeployment import ModelDeploymentStatus
from codetune_api.project import ProjectStatus
from codetune_api.team import TeamStatus

from codetune_operator.cluster.kinds import FINETUNE, MODELDEPLOYMENT, PROJECT, TEAM
from codetune_operator.metrics.families import ANY_RESOURCE, Family
from codetune_operator.metrics.series import Obj, Series, Values, find, moment, words_of

_STATUSES = ("True", "False", "Unknown")
PHASES: Mapping[str, tuple[str, ...]] = {
    kind.name: words_of(status, "phase")
    for kind, status in (
        (PROJECT, ProjectStatus),
        (FINETUNE, FineTuneStatus),
        (MODELDEPLOYMENT, ModelDeploymentStatus),
        (TEAM, TeamStatus),
    )
}
"""Kind → the phases that its resources go through."""


def _read_conditions(obj: Obj) -> Values:
    for condition in find(obj, "status", "conditions") or ():
        for status in _STATUSES:
            yield (condition["type"], status.lower()), float(condition["status"] == status)


def _read_phase(obj: Obj) -> Values:
    current = find(obj, "status", "phase")
    return [((phase,), float(phase == current)) for phase in PHASES[obj["kind"]]] if current else []


def _read_failure(obj: Obj) -> Values:
    reason = find(obj, "status", "failure", "reason")
    return [((reason,), 1.0)] if reason else []


EVERYONE = (
    moment(
        "codetune_resource_created_timestamp_seconds",
        "metadata",
        "creationTimestamp",
        labels=ANY_RESOURCE,
        help="When the resource was made, in seconds since 1970.",
    ),
    Series(
        Family(
            "codetune_resource_condition",
            "gauge",
            (*ANY_RESOURCE, "type", "status"),
            "1 for the status (true, false or unknown) that a condition has, 0 for the others. Reconciling and Stalled "
            "are there only while they are true.",
        ),
        _read_conditions,
    ),
    Series(
        Family(
            "codetune_resource_phase",
            "gauge",
            (*ANY_RESOURCE, "phase"),
            "1 for the phase that the resource is in, 0 for each other phase of its kind.",
        ),
        _read_phase,
    ),
    Series(
        Family(
            "codetune_resource_failure",
            "gauge",
            (*ANY_RESOURCE, "reason"),
            "1 for the reason in status.failure, as long as there is one.",
        ),
        _read_failure,
    ),
)
