"""What a request asks for: the parts of its path and query, as Kubernetes lays them out. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from codetune_local.apiserver.access.authorizing import Attributes
from codetune_local.apiserver.errors import bad_request, no_such_route

_PROXY_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Target:
    """The resource part of a path."""

    group: str
    version: str
    plural: str
    namespace: str | None = None
    name: str = ""
    subresource: str = ""

    def verb(self, method: str, query: Mapping[str, str]) -> str:
        """The RBAC verb."""
        if method in ("GET", "HEAD"):
            if self.name and not (is_true(query, "watch")):
                return "get"
            return "watch" if is_true(query, "watch") else "list"
        if method == "DELETE" and not self.name:
            return "deletecollection"
        return _VERBS.get(method, method.lower())


def is_resource(path: str) -> bool:
    """Whether a path is about objects, and not about discovery."""
    parts = path.strip("/").split("/")
    return len(parts) > {"api": 2, "apis": 3}.get(parts[0], len(parts))


def attributes_of(target: Target, method: str, query: Mapping[str, str]) -> Attributes:
    """What a request has to be allowed to do."""
    resource = f"{target.plural}/{target.subresource}" if target.subresource else target.plural
    name, verb = target.name, target.verb(method, query)
    if target.subresource == "proxy":
        # The name as it stands, with scheme and port: a role's resourceNames have to say `http:web:80`.
        verb = _PROXY_VERBS.get(method, "get")
    if not name and verb in ("list", "watch", "deletecollection"):  # a selection of one name is a request for that name
        name = selected_name(query.get("fieldSelector", ""))
    # A namespace itself is looked at with the rights inside of it, too.
    is_namespace = target.plural == "namespaces" and not target.group
    namespace = target.namespace or (target.name if is_namespace else "")
    return Attributes(verb, target.group, resource, namespace, name)


def selected_name(selector: str) -> str:
    """The name that a field selector asks for; empty when it asks for none."""
    for term in selector.split(","):
        field, _, value = term.partition("=")
        if field == "metadata.name" and value:
            return value.removeprefix("=")
    return ""


def parse_path(path: str) -> Target:
    """The target of `/api/v1/…` or `/apis/GROUP/VERSION/…`. Raises: ApiError (404)."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, parts = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        raise no_such_route()
    namespace = None
    if parts[0] == "namespaces" and len(parts) >= 3 and not (len(parts) == 3 and parts[2] in ("status", "finalize")):
        namespace, parts = parts[1], parts[2:]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    if len(parts) > 3 and subresource != "proxy":
        raise no_such_route()
    return Target(group, version, parts[0], namespace, name, subresource)


def is_true(query: Mapping[str, str], key: str) -> bool:
    """Whether a query parameter says yes."""
    return query.get(key, "") in ("true", "1", "True")


def integer(query: Mapping[str, str], key: str, default: int = 0) -> int:
    """A number out of the query. Raises: ApiError (400)."""
    try:
        return int(query.get(key) or default)
    except ValueError as error:
        raise bad_request(f"the query parameter {key}={query[key]!r} is not a number") from error


def is_dry_run(query: Mapping[str, str]) -> bool:
    """Whether nothing may be stored. Raises: ApiError (400)."""
    value = query.get("dryRun", "")
    if value not in ("", "All"):
        raise bad_request(f'Invalid value: "dryRun={value}": supported values: "All"')
    return value == "All"


def delete_options(body: Any, query: Mapping[str, str], kind: str) -> dict[str, Any]:
    """propagation, uid, resource_version and grace out of DeleteOptions and query."""
    options = body if isinstance(body, dict) and body.get("kind", "DeleteOptions") == "DeleteOptions" else {}
    propagation = options.get("propagationPolicy") or query.get("propagationPolicy")
    if propagation is None:
        orphan = options.get("orphanDependents")
        propagation = "Orphan" if orphan else "Background"
    grace = options.get("gracePeriodSeconds")
    if grace is None and query.get("gracePeriodSeconds"):
        grace = integer(query, "gracePeriodSeconds")
    conditions = options.get("preconditions") or {}
    return {
        "propagation": propagation,
        "uid": conditions.get("uid"),
        "resource_version": conditions.get("resourceVersion"),
        "grace": grace,
    }


def manager_of(query: Mapping[str, str], agent: str) -> str:
    """The field manager: what was said, or the beginning of the user agent."""
    return query.get("fieldManager") or agent.split("/")[0] or "unknown"
