"""The operator's settings: one typed file, the same on a cluster (a ConfigMap of the chart) and on a laptop."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import yaml
from codetune_api.artifacts import CLAIM_URI
from codetune_api.common import Resources
from codetune_api.model import Name, Quantity
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from codetune_operator.errors import SettingsError

_WORDS = {"extra_forbidden": "there is no such field: check its spelling"}
_TAG = version("codetune-operator")
_ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
"""As names of Secrets, ConfigMaps and ServiceAccounts may be: with dots."""
_Port = Annotated[int, Field(ge=1, le=65535)]
_BUCKET = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_=][A-Za-z0-9_=.-]*)*/?$"


class _Group(BaseModel):
    """Settings that belong together: camelCase in the file, an unknown key is an error."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )


class ImageSettings(_Group):
    """What the pods that the operator makes run."""

    operator: str = f"codetune-operator:{_TAG}"
    """Image of the operator itself; store services and the gateways of Teams run from it too."""
    trainer: str = f"codetune-trainer:{_TAG}"
    """Image of the Jobs scan, train, merge and purge, and of the init container fetch."""
    server: str = f"codetune-server:{_TAG}"
    """Image of serving pods that have a GPU."""
    server_cpu: str = f"codetune-server-cpu:{_TAG}"
    """Image of serving pods without a GPU."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """As in a container."""
    pull_secrets: list[_ObjectName] = []
    """Names of Secrets with registry credentials, in the namespace of each pod."""


class StoreSettings(_Group):
    """The artifact store of each namespace: a bucket, or the claim `codetune-artifacts` that the operator makes in a
    namespace that has none."""

    bucket: Annotated[str, Field(pattern=_BUCKET)] | None = None
    """`s3://bucket/prefix`, where everything of a namespace lies below `<namespace>/`; needs `s3`. Unset: claims. The
    fields below are then about the room that each pod gets for its own copy of what it needs."""
    storage_class_name: str | None = None
    """Unset: the cluster's default class; with a bucket: the node's own disk."""
    size: Quantity = "50Gi"
    """Room asked for, e.g. `200Gi`."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """ReadWriteOnce is enough only where all pods of a namespace run on one node. A bucket has no use for it."""

    @property
    def uri(self) -> str:
        """What the URIs of its artifacts begin with."""
        return self.bucket.rstrip("/") if self.bucket is not None else CLAIM_URI


class S3Settings(_Group):
    """How pods reach what `s3://` names: the artifact store where `store.bucket` is set, base models and adapters."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/]+/?$")] | None = None
    """Base URL of an S3-compatible server; unset: AWS."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "us-east-1"
    """Region that requests are signed for."""
    credentials_secret_name: _ObjectName | None = None
    """Secret in each namespace with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, where there is one,
    `AWS_SESSION_TOKEN`. Unset: the pods have an identity of their own, by their ServiceAccount or their node."""
    service_account_name: _ObjectName | None = None
    """ServiceAccount in each namespace that such an identity is bound to (IRSA, EKS Pod Identity); unset: `default`."""
    ca_config_map_name: _ObjectName | None = None
    """ConfigMap in each namespace with the certificates of the endpoint's own authority, under `ca.crt`."""


class HubSettings(_Group):
    """The model hub that `hf://` names."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    """A mirror's base URL; unset: the public hub."""


class NetworkPolicySettings(_Group):
    """NetworkPolicies of serving pods, where a ModelDeployment has one."""

    egress_ports: list[_Port] = []
    """TCP ports that the pods may reach besides those of `s3.endpoint` and `hub.endpoint`, e.g. `[9000]`: those of the
    pods behind an endpoint's Service, where the network plugin compares the pod's port and not the Service's."""


class Settings(_Group):
    """Everything that an administrator decides about the operator."""

    namespace: Name = "codetune-system"
    """The operator's own namespace: where the Secret with its key is."""
    namespaces: list[Name] = []
    """Namespaces whose resources are reconciled; empty: all of them."""
    images: ImageSettings = ImageSettings()
    store: StoreSettings = StoreSettings()
    s3: S3Settings | None = None
    """Unset: `s3://` is refused."""
    hub: HubSettings = HubSettings()
    network_policy: NetworkPolicySettings = NetworkPolicySettings()
    monitoring_namespaces: list[Name] = []
    """Namespaces whose pods may reach every serving pod and every gateway, e.g. that of Prometheus; the chart lets them
    reach the operator's metrics too."""
    endpoint: Literal["DNS", "ClusterIP"] = "DNS"
    """How `status.endpoint` names a Service: by its cluster DNS name, or by address where there is no DNS."""
    file_root: Annotated[str, Field(pattern=r"^/")] | None = None
    """Folder that `file:///` URIs are relative to; unset: file URIs are refused. For a local cluster only."""
    scan_resources: Resources = Resources(gpus=0, cpu="1", memory="2Gi")
    """What a scan Job asks of its node: `cpu` in cores, `memory` in bytes (also the limit)."""
    log_format: Literal["text", "json"] = "text"
    """How the operator writes its own log."""

    @model_validator(mode="after")
    def _check_bucket(self) -> "Settings":
        if self.store.bucket is not None and self.s3 is None:
            raise ValueError("store.bucket needs s3, which says how it is reached: s3: {region: …}")
        return self


def load_settings(path: Path) -> Settings:
    """Read a settings file.

    Raises:
        SettingsError: It can't be read or has mistakes; all of them are named at once.
    """
    try:
        return parse_settings(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {path} can't be read: {error}") from error
    except SettingsError as error:
        raise SettingsError(f"The settings file {path} has mistakes:\n{error}") from error


def parse_settings(text: str) -> Settings:
    """Settings from YAML; an empty text gives the defaults. Raises: SettingsError."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"  not YAML: {error}") from error
    if content is None:
        return Settings()
    if not isinstance(content, dict):
        raise SettingsError(f"  a mapping of settings is expected, got {type(content).__name__}")
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise SettingsError("\n".join(f"  {line}" for line in describe_mistakes(error))) from error


def describe_mistakes(error: ValidationError) -> list[str]:
    """One line a mistake: field, what is wrong and, where it says more, the value."""
    return [
        _describe(mistake["loc"], _WORDS.get(mistake["type"], mistake["msg"]), mistake["input"])
        for mistake in error.errors()
    ]


def _describe(location: tuple[int | str, ...], message: str, value: object) -> str:
    field = ".".join(str(part) for part in location) or "the object"
    got = f", got {value!r}"[:120] if isinstance(value, str | int | float | bool) else ""
    return f"{field}: {message}{got}"
