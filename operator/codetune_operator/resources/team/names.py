"""How the objects of a Team's gateway are called, labelled and told apart. Pure."""

from typing import Any

from codetune_api.gateway import GATEWAY_SUFFIX
from codetune_api.metadata import LABEL_COMPONENT, LABEL_INSTANCE, LABEL_TEAM, labels
from codetune_api.team import Team

from codetune_operator.resources.children import build_child

Obj = dict[str, Any]

CONTAINER = "gateway"
PORT = 8000
_COMPONENT = "gateway"


def gateway_name(team: Team) -> str:
    """Name of each of its objects."""
    return f"{team.metadata.name}{GATEWAY_SUFFIX}"


def gateway_labels(team: Team) -> dict[str, str]:
    """Labels of each of its objects, and of its pods."""
    name = team.metadata.name
    return labels(_COMPONENT, name, {LABEL_TEAM: name})


def pod_selector(team: Team) -> dict[str, str]:
    """Labels that the pods are found by; they can't be changed later, so they are few."""
    chosen = gateway_labels(team)
    return {key: chosen[key] for key in (LABEL_INSTANCE, LABEL_COMPONENT, LABEL_TEAM)}


def build_object(team: Team, api_version: str, kind: str) -> Obj:
    """An object with nothing but its type and metadata: labelled, and gone with the Team."""
    return build_child(team, gateway_labels(team), api_version, kind, gateway_name(team))
