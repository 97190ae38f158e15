"""What a pod needs to reach buckets: variables, certificates, an identity. Pure.

Keys come from a Secret into the environment, where every S3 client looks for them; they are in no argument, log, status
or configuration.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from codetune_api.contracts import ENV_BUCKET, ENV_NAMESPACE

from codetune_operator.settings import S3Settings, Settings

Obj = dict[str, Any]

_AUTHORITIES = "/codetune/s3-authorities"
_VOLUME = "s3-authorities"
_REGION = "AWS_REGION"
"""Every container that speaks S3 has it."""
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_TOKEN = "AWS_SESSION_TOKEN"


def bucket_environment(settings: Settings) -> list[Obj]:
    """Entries of `env` for a container that speaks S3."""
    s3 = settings.s3
    if s3 is None:
        return []
    plain = {_REGION: s3.region}
    if s3.endpoint is not None:
        plain["AWS_ENDPOINT_URL_S3"] = s3.endpoint.rstrip("/")
    if s3.ca_config_map_name is not None:
        plain["AWS_CA_BUNDLE"] = f"{_AUTHORITIES}/ca.crt"
    if settings.store.bucket is not None:
        plain[ENV_BUCKET] = settings.store.uri
    own = {"name": ENV_NAMESPACE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}
    return [*({"name": name, "value": value} for name, value in plain.items()), own, *_keys(s3)]


def bucket_mounts(settings: Settings) -> list[Obj]:
    """Mounts of such a container."""
    if settings.s3 is None or settings.s3.ca_config_map_name is None:
        return []
    return [{"name": _VOLUME, "mountPath": _AUTHORITIES, "readOnly": True}]


def speaks_s3(containers: Iterable[Obj]) -> bool:
    """Whether one of these containers does."""
    return any(entry["name"] == _REGION for container in containers for entry in container["env"])


def bucket_volumes(settings: Settings) -> list[Obj]:
    """Volumes of a pod with such a container."""
    if settings.s3 is None or settings.s3.ca_config_map_name is None:
        return []
    return [{"name": _VOLUME, "configMap": {"name": settings.s3.ca_config_map_name}}]


def bucket_port(s3: S3Settings) -> int:
    """Port of the endpoint."""
    place = urlsplit(s3.endpoint or "https://")
    return place.port or (80 if place.scheme == "http" else 443)


def build_store_volume(settings: Settings) -> Obj:
    """Room for a pod's own copy of what it needs of a bucket."""
    store = settings.store
    if store.storage_class_name is None:
        return {"emptyDir": {"sizeLimit": store.size}}
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": store.storage_class_name,
        "resources": {"requests": {"storage": store.size}},
    }
    return {"ephemeral": {"volumeClaimTemplate": {"spec": spec}}}


def _keys(s3: S3Settings) -> list[Obj]:
    if s3.credentials_secret_name is None:
        return []
    name = s3.credentials_secret_name
    needed = [{"name": key, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}} for key in _KEYS]
    optional = {"secretKeyRef": {"name": name, "key": _TOKEN, "optional": True}}
    return [*needed, {"name": _TOKEN, "valueFrom": optional}]
