"""The rules for every object's metadata: names, labels, annotations, finalizers, owners. Pure."""

import re
from typing import Any

from codetune_local.apiserver.catalog import ResourceInfo
from codetune_local.apiserver.objects.structural import Cause

Obj = dict[str, Any]
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_NAMED_BY_LABEL = ("services", "namespaces")
_NAMED_FREELY = ("roles", "rolebindings", "clusterroles", "clusterrolebindings")
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")
_ANNOTATIONS_BYTES = 256 * 1024

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character"
)
_QUALIFIED_TEXT = (
    "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
)


def check_metadata(info: ResourceInfo, metadata: Obj) -> list[Cause]:
    """Everything that is wrong with it."""
    return [
        *_check_name(info, metadata["name"]),
        *_check_labels(metadata.get("labels") or {}),
        *_check_annotations(metadata.get("annotations") or {}),
        *_check_finalizers(info, metadata.get("finalizers") or []),
        *_check_owners(metadata.get("ownerReferences") or []),
    ]


def invalid_value(field: str, value: Any, why: str) -> Cause:
    """A cause that shows the value."""
    return field, "FieldValueInvalid", f'Invalid value: "{value}": {why}'


def is_label(name: str) -> bool:
    """Whether a name is a DNS-1123 label."""
    return bool(_LABEL.fullmatch(name)) and len(name) <= 63


def is_qualified(name: str) -> bool:
    """Whether a name is `[SUBDOMAIN/]NAME`, as keys of labels and annotations are."""
    prefix, slash, part = name.rpartition("/")
    if slash and (not _SUBDOMAIN.fullmatch(prefix) or len(prefix) > 253):
        return False
    return bool(_NAME_PART.fullmatch(part)) and len(part) <= 63


def _check_name(info: ResourceInfo, name: str) -> list[Cause]:
    if info.plural in _NAMED_FREELY:
        is_right, why = "/" not in name and "%" not in name, "may not contain '/' or '%'"
    elif info.plural in _NAMED_BY_LABEL:
        is_right, why = is_label(name), _LABEL_TEXT
    else:
        is_right, why = bool(_SUBDOMAIN.fullmatch(name)) and len(name) <= 253, _SUBDOMAIN_TEXT
    return [] if is_right else [invalid_value("metadata.name", name, why)]


def _check_labels(labels: Obj) -> list[Cause]:
    causes = [invalid_value("metadata.labels", key, _QUALIFIED_TEXT) for key in labels if not is_qualified(key)]
    for value in labels.values():
        if not isinstance(value, str) or len(value) > 63 or not _LABEL_VALUE.fullmatch(value):
            causes.append(invalid_value("metadata.labels", value, _LABEL_VALUE_TEXT))
    return causes


def _check_annotations(annotations: Obj) -> list[Cause]:
    causes = [
        invalid_value("metadata.annotations", key, _QUALIFIED_TEXT)
        for key in annotations
        if not is_qualified(key.lower())
    ]
    if sum(len(key) + len(str(value)) for key, value in annotations.items()) > _ANNOTATIONS_BYTES:
        why = f"Too long: may not be more than {_ANNOTATIONS_BYTES} bytes"
        causes.append(("metadata.annotations", "FieldValueTooLong", why))
    return causes


def _check_finalizers(info: ResourceInfo, finalizers: list[str]) -> list[Cause]:
    causes: list[Cause] = []
    for name in finalizers:
        if not is_qualified(name):
            causes.append(invalid_value("metadata.finalizers", name, _QUALIFIED_TEXT))
        elif info.custom is None and "/" not in name and "." not in name and name not in _STANDARD_FINALIZERS:
            why = "name is neither a standard finalizer name nor is it fully qualified"
            causes.append(invalid_value("metadata.finalizers", name, why))
    return causes


def _check_owners(owners: list[Obj]) -> list[Cause]:
    field = "metadata.ownerReferences"
    causes: list[Cause] = []
    for owner in owners:
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                causes.append(invalid_value(f"{field}.{key}", "", "must not be empty"))
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        why = "Only one reference can have Controller set to true"
        causes.append((field, "FieldValueInvalid", f"Invalid value: {why}"))
    return causes
