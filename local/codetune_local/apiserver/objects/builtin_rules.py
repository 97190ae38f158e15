"""Rules of built-in kinds that no schema says: what must name what, be unique or stay as it was. Pure.

Not every rule of a real API server: those that an operator's objects can break.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from codetune_local.apiserver.objects.metadata import invalid_value, is_label
from codetune_local.apiserver.objects.structural import Cause
from codetune_local.machinery.quantities import parse_quantity

Obj = dict[str, Any]
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_VARIABLE = re.compile(r"[^=\x00-\x1f]+")


def check_builtin(resource: str, obj: Obj) -> list[Cause]:
    """Everything that is wrong with an object that fits its schema."""
    check = _CHECKS.get(resource)
    return list(check(obj)) if check else []


def _check_pod(obj: Obj) -> Iterator[Cause]:
    yield from _check_pod_spec(obj["spec"], "spec")


def _check_job(obj: Obj) -> Iterator[Cause]:
    spec, path = obj["spec"]["template"]["spec"], "spec.template.spec"
    if spec.get("restartPolicy") not in ("OnFailure", "Never"):
        why = f'Unsupported value: "{spec.get("restartPolicy")}": supported values: "OnFailure", "Never"'
        yield f"{path}.restartPolicy", "FieldValueNotSupported", why
    if obj["spec"].get("podFailurePolicy") and spec.get("restartPolicy") != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        yield invalid_value(f"{path}.restartPolicy", spec.get("restartPolicy"), why)
    if obj["spec"].get("completionMode") == "Indexed" and obj["spec"].get("completions") is None:
        why = 'Required value: when completion mode is "Indexed"'
        yield "spec.completions", "FieldValueRequired", why
    yield from _check_pod_spec(spec, path)


def _check_workload(obj: Obj) -> Iterator[Cause]:
    spec = obj["spec"]
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    wanted = (spec.get("selector") or {}).get("matchLabels") or {}
    if not wanted and not (spec.get("selector") or {}).get("matchExpressions"):
        yield "spec.selector", "FieldValueInvalid", "Invalid value: {}: empty selector is invalid for deployment"
    if any(labels.get(key) != value for key, value in wanted.items()):
        why = "Invalid value: `selector` does not match template `labels`"
        yield "spec.template.metadata.labels", "FieldValueInvalid", why
    if spec["template"]["spec"].get("restartPolicy", "Always") != "Always":
        why = f'Unsupported value: "{spec["template"]["spec"]["restartPolicy"]}": supported values: "Always"'
        yield "spec.template.spec.restartPolicy", "FieldValueNotSupported", why
    yield from _check_pod_spec(spec["template"]["spec"], "spec.template.spec")


def _check_pod_spec(spec: Obj, path: str) -> Iterator[Cause]:
    volumes = [volume["name"] for volume in spec.get("volumes") or []]
    yield from _check_names(volumes, f"{path}.volumes")
    if not spec.get("containers"):
        yield f"{path}.containers", "FieldValueRequired", "Required value"
    seen: list[str] = []
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or []):
            here = f"{path}.{kind}[{index}]"
            yield from _check_container(container, here, volumes)
            if container["name"] in seen:
                yield f"{here}.name", "FieldValueDuplicate", f'Duplicate value: "{container["name"]}"'
            seen.append(container["name"])


def _check_names(names: list[str], path: str) -> Iterator[Cause]:
    for index, name in enumerate(names):
        if not is_label(name):
            yield invalid_value(
                f"{path}[{index}].name",
                name,
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'",
            )
        if name in names[:index]:
            yield f"{path}[{index}].name", "FieldValueDuplicate", f'Duplicate value: "{name}"'


def _check_container(container: Obj, path: str, volumes: list[str]) -> Iterator[Cause]:
    if not is_label(container["name"]):
        yield invalid_value(
            f"{path}.name",
            container["name"],
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'",
        )
    if not container.get("image"):
        yield f"{path}.image", "FieldValueRequired", "Required value"
    places: list[str] = []
    for index, mount in enumerate(container.get("volumeMounts") or []):
        here = f"{path}.volumeMounts[{index}]"
        if mount["name"] not in volumes:
            yield f"{here}.name", "FieldValueNotFound", f'Not found: "{mount["name"]}"'
        if mount["mountPath"] in places:
            yield invalid_value(f"{here}.mountPath", mount["mountPath"], "must be unique")
        places.append(mount["mountPath"])
    for index, variable in enumerate(container.get("env") or []):
        if not _VARIABLE.fullmatch(variable["name"]):
            yield invalid_value(
                f"{path}.env[{index}].name", variable["name"], "a valid environment variable name is wanted"
            )
        if variable.get("value") and variable.get("valueFrom"):
            yield invalid_value(f"{path}.env[{index}].valueFrom", "", "may not be specified when `value` is not empty")
    yield from _check_resources(container.get("resources") or {}, f"{path}.resources")


def _check_resources(resources: Obj, path: str) -> Iterator[Cause]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            if _amount(amount) is None:
                why = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                yield invalid_value(f"{path}.{kind}[{name}]", amount, why)
    for name, amount in requests.items():
        wanted, most = _amount(amount), _amount(limits.get(name))
        if wanted is None or (name in limits and most is None):
            continue
        if most is not None and wanted > most:
            why = f"must be less than or equal to {name} limit of {limits[name]}"
            yield invalid_value(f"{path}.requests", amount, why)
        is_extended = "/" in name and not name.startswith("kubernetes.io/")
        if is_extended and wanted != most:
            why = f"must be equal to {name} limit of {limits.get(name, '0')}"
            yield invalid_value(f"{path}.requests", amount, why)


def _amount(quantity: Any) -> float | None:
    if quantity is None:
        return None
    try:
        return float(parse_quantity(quantity))
    except ValueError:
        return None


def _check_config(obj: Obj) -> Iterator[Cause]:
    for field in ("data", "binaryData"):
        for key in obj.get(field) or {}:
            if not _CONFIG_KEY.fullmatch(key) or key in (".", "..") or len(key) > 253:
                why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
                yield invalid_value(f"{field}[{key}]", key, why)
    size = sum(len(str(value)) for field in ("data", "binaryData") for value in (obj.get(field) or {}).values())
    if size > 1 << 20:
        yield "", "FieldValueTooLong", f"Too long: may not be more than {1 << 20} bytes"


def _check_service(obj: Obj) -> Iterator[Cause]:
    spec = obj["spec"]
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield "spec.ports", "FieldValueRequired", "Required value"
    for index, port in enumerate(ports):
        if len(ports) > 1 and not port.get("name"):
            yield f"spec.ports[{index}].name", "FieldValueRequired", "Required value"
        if not 0 < port["port"] < 65536:
            yield (
                f"spec.ports[{index}].port",
                "FieldValueInvalid",
                f"Invalid value: {port['port']}: must be between 1 and 65535, inclusive",
            )


_CHECKS: dict[str, Callable[[Obj], Iterator[Cause]]] = {
    "pods": _check_pod,
    "jobs.batch": _check_job,
    "deployments.apps": _check_workload,
    "replicasets.apps": _check_workload,
    "statefulsets.apps": _check_workload,
    "daemonsets.apps": _check_workload,
    "configmaps": _check_config,
    "secrets": _check_config,
    "services": _check_service,
}
