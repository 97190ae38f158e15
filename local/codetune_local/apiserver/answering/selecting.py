"""Label and field selectors of list, watch and deletecollection. Pure."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from codetune_local.apiserver.catalog import ResourceInfo
from codetune_local.apiserver.errors import bad_request

Predicate = Callable[[Mapping[str, Any]], bool]

_SET = re.compile(r"\s*([^\s,=!()]+)\s+(in|notin)\s+\(([^)]*)\)\s*")
_ONE = re.compile(r"\s*(?:!\s*([^\s,=!()]+)|([^\s,=!()]+)\s*(==|=|!=)\s*([^\s,=!()]*)|([^\s,=!()]+))\s*")


def label_predicate(text: str) -> Predicate:
    """Whether labels match `a=b,c in (d,e),!f`. Raises: ApiError."""
    requirements = list(_parse(text))
    return lambda labels: all(_meets(labels, *requirement) for requirement in requirements)


def _parse(text: str) -> Any:
    position = 0
    while position < len(text):
        match = _SET.match(text, position)
        if match:
            yield match[1], match[2], [value.strip() for value in match[3].split(",")]
        else:
            match = _ONE.match(text, position)
            if not match or match.end() == position:
                raise bad_request(f"unable to parse requirement: {text[position:]!r}")
            if match[1]:
                yield match[1], "!", []
            elif match[5]:
                yield match[5], "exists", []
            else:
                yield match[2], "notin" if match[3] == "!=" else "in", [match[4]]
        position = match.end()
        if position < len(text):
            if text[position] != ",":
                raise bad_request(f"unable to parse requirement: found {text[position:]!r}, expected: ','")
            position += 1


def _meets(labels: Mapping[str, Any], key: str, operator: str, values: list[str]) -> bool:
    if operator == "exists":
        return key in labels
    if operator == "!":
        return key not in labels
    if operator == "in":
        return key in labels and labels[key] in values
    return labels.get(key) not in values


_EVENT_FIELDS = tuple(
    f"{about}.{field}"
    for about in ("involvedObject", "regarding")
    for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
)
_SELECTABLE: dict[str, tuple[str, ...]] = {
    "pods": (
        *("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork"),
        *("status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName"),
    ),
    "events": (*_EVENT_FIELDS, "reason", "reportingComponent", "reportingController", "source", "type"),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "jobs.batch": ("status.successful",),
    "replicasets.apps": ("status.replicas",),
}
"""What can be selected by besides name and namespace, as the API reference lists it."""


def field_predicate(info: ResourceInfo, text: str) -> Predicate:
    """Whether an object matches `metadata.name=x,status.phase!=Running`. Raises: ApiError (400)."""
    terms = []
    for term in filter(None, text.split(",")):
        path, operator, value = re.split(r"(==|!=|=)", term, maxsplit=1) if "=" in term else (term, "", "")
        if not operator:
            raise bad_request(f"invalid field selector: {text!r}; can't understand {term!r}")
        if path not in ("metadata.name", "metadata.namespace", *_selectable(info)):
            raise bad_request(f"field label not supported: {path}")
        terms.append((path.replace("regarding.", "involvedObject."), operator != "!=", value))
    return lambda obj: all((_field(obj, path) == value) is wanted for path, wanted, value in terms)


def _selectable(info: ResourceInfo) -> tuple[str, ...]:
    if info.custom is not None:
        return tuple(found["jsonPath"].lstrip(".") for found in info.custom.get("selectableFields") or [])
    return _SELECTABLE.get("events" if info.plural == "events" else info.key, ())


def _field(obj: Mapping[str, Any], path: str) -> str:
    found: Any = obj
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, bool):
        return str(found).lower()
    return "" if found is None else str(found)
