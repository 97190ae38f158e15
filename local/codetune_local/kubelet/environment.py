"""A container's environment from its spec. Pure: what it refers to is given as mappings."""

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_CEILING, Decimal

from codetune_local.kubelet.errors import ConfigError
from codetune_local.machinery.objects import Obj, annotations_of, labels_of
from codetune_local.machinery.quantities import parse_quantity

Lookup = Callable[[str, str], Mapping[str, str] | None]
"""("configmaps" or "secrets", name) → its data as text, or None when there is none."""

_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")
_KINDS = {
    "configMapKeyRef": "configmaps",
    "secretKeyRef": "secrets",
    "configMapRef": "configmaps",
    "secretRef": "secrets",
}
_TITLES = {"configmaps": "configmap", "secrets": "secret"}


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$(NAME)`; `$$` is a dollar sign, and an unknown name stays as it is."""

    def replace(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        return values.get(match.group(1), match.group())

    return _REFERENCE.sub(replace, text)


def build_environment(pod: Obj, container: Obj, lookup: Lookup, allocatable: Mapping[str, str]) -> dict[str, str]:
    """`envFrom`, then `env` in order, each value expanded with those before it.

    Args:
        pod: With status.podIP set.
        container: One of the pod's containers.
        lookup: Finds ConfigMaps and Secrets of the pod's namespace.
        allocatable: What the node has: the value of a limit that is not set.

    Raises:
        ConfigError: Something referred to does not exist.
    """
    values: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        values |= _all_keys(source, lookup)
    for entry in container.get("env") or []:
        if "valueFrom" not in entry:
            values[entry["name"]] = expand(entry.get("value") or "", values)
            continue
        found = _value_from(entry, pod, container, lookup, allocatable)
        if found is not None:
            values[entry["name"]] = found
    return values


def _all_keys(source: Obj, lookup: Lookup) -> dict[str, str]:
    reference = next(key for key in ("configMapRef", "secretRef") if key in source)
    kind, name = _KINDS[reference], source[reference]["name"]
    data = lookup(kind, name)
    if data is None:
        if source[reference].get("optional"):
            return {}
        raise ConfigError(f'{_TITLES[kind]} "{name}" not found')
    return {f"{source.get('prefix', '')}{key}": value for key, value in data.items()}


def _value_from(entry: Obj, pod: Obj, container: Obj, lookup: Lookup, allocatable: Mapping[str, str]) -> str | None:
    source = entry["valueFrom"]
    if "fieldRef" in source:
        return read_field(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return read_resource(pod, container, source["resourceFieldRef"], allocatable)
    reference = next((key for key in ("configMapKeyRef", "secretKeyRef") if key in source), None)
    if reference is None:
        raise ConfigError(f"env {entry['name']}: valueFrom {sorted(source)} is not offered by the local cluster")
    kind, name, key = _KINDS[reference], source[reference]["name"], source[reference]["key"]
    data = lookup(kind, name)
    if data is not None and key in data:
        return data[key]
    if source[reference].get("optional"):
        return None
    if data is None:
        raise ConfigError(f'{_TITLES[kind]} "{name}" not found')
    raise ConfigError(f"couldn't find key {key} in {_TITLES[kind].capitalize()} {pod['metadata']['namespace']}/{name}")


def read_field(pod: Obj, path: str) -> str:
    """A field of the downward API. Raises: ConfigError for a field that it does not offer."""
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        values = labels_of(pod) if subscript.group(1) == "labels" else annotations_of(pod)
        return values.get(subscript.group(2), "")
    if path in ("metadata.labels", "metadata.annotations"):
        return format_map(labels_of(pod) if path == "metadata.labels" else annotations_of(pod))
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata.get("uid", ""),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": ",".join(entry["ip"] for entry in status.get("podIPs") or []),
        "status.hostIP": status.get("hostIP", ""),
        "status.hostIPs": status.get("hostIP", ""),
    }
    if path not in fields:
        raise ConfigError(f"fieldPath {path!r} is not one of {', '.join(sorted(fields))} or metadata.labels['KEY']")
    text: str = fields[path]
    return text


def format_map(values: Mapping[str, str]) -> str:
    """Labels or annotations as a downward API file has them."""
    return "\n".join(f'{key}="{_escape(value)}"' for key, value in sorted(values.items()))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def read_resource(pod: Obj, container: Obj, reference: Obj, allocatable: Mapping[str, str]) -> str:
    """A limit or request as a whole number of `divisor`s, rounded up. Raises: ConfigError."""
    named = reference.get("containerName")
    holder = container
    if named:
        holders: Iterable[Obj] = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
        holder = next((found for found in holders if found["name"] == named), {})
        if not holder:
            raise ConfigError(f"resourceFieldRef.containerName {named!r} is not a container of this pod")
    group, _, resource = reference["resource"].partition(".")
    resources = holder.get("resources") or {}
    value = (resources.get(group) or {}).get(resource)
    if value is None:
        value = allocatable.get(resource, "0") if group == "limits" else "0"
    divisor = parse_quantity(reference.get("divisor") or "1") or Decimal(1)
    return str((parse_quantity(value) / divisor).to_integral_value(ROUND_CEILING))
