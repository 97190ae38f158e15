"""The Kubernetes objects that commands look at, and the annotations that they set."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from codetune_api.common import Condition, Conditions, Resource
from codetune_api.finetune import FineTune
from codetune_api.metadata import (
    ANNOTATION_MERGE,
    ANNOTATION_RESCAN,
    ANNOTATION_STORE_UNTIL,
    API_VERSION,
    STORE_TOKEN_KEY,
    STORE_TOKEN_SECRET,
)
from codetune_api.modeldeployment import ModelDeployment
from codetune_api.project import Project
from codetune_api.team import Team
from pydantic import ValidationError

from codetune_cli.connecting import Connection, Obj
from codetune_cli.errors import ApiRefusal, CliError

R = TypeVar("R", bound=Resource)

NOT_INSTALLED = "This cluster does not know Codetune's resources: install the Helm chart first."
STORE_HOURS = 1
"""For how long the store service is asked for to look at something."""
_MERGE = "application/merge-patch+json"
_MANY = 20


def find_project(connection: Connection, name: str) -> Project:
    """A Project. Raises: CliError that names those that are there."""
    return read_resource(Project, _find(connection, "projects", "Project", name))


def find_finetune(connection: Connection, name: str) -> FineTune:
    """A FineTune. Raises: CliError that names those that are there."""
    return read_resource(FineTune, _find(connection, "finetunes", "FineTune", name))


def find_modeldeployment(connection: Connection, name: str) -> ModelDeployment:
    """A ModelDeployment. Raises: CliError that names those that are there."""
    return read_resource(ModelDeployment, _find(connection, "modeldeployments", "ModelDeployment", name))


def find_team(connection: Connection, name: str) -> Team:
    """A Team. Raises: CliError that names those that are there."""
    return read_resource(Team, _find(connection, "teams", "Team", name))


def read_resource(kind: type[R], found: Obj) -> R:
    """An object of the API server as what it is. Raises: CliError."""
    try:
        return kind.from_wire(found)
    except ValidationError as error:
        name = (found.get("metadata") or {}).get("name")
        told = f"{kind.__name__} {name!r} can't be read: it and this command must be of the same Codetune version."
        raise CliError(told) from error


def find_ready(conditions: Conditions) -> Condition | None:
    """The condition that sums the others up; None where the operator has not seen the resource yet."""
    return next((found for found in conditions if found.type == "Ready"), None)


def tell_ready(conditions: Conditions) -> str:
    """What the condition `Ready` says; empty where there is none yet."""
    ready = find_ready(conditions)
    return f"{ready.reason}: {ready.message}" if ready is not None else ""


def ask_for_rescan(connection: Connection, project: Project, version: str) -> None:
    """Have a Project scanned at once. Raises: CliError."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    _annotate(connection, project, ANNOTATION_RESCAN, f"{version[:12]}-{now}")


def ask_for_store(connection: Connection, resource: Project | FineTune) -> None:
    """Have the namespace's store service run for a while. Raises: CliError."""
    until = (datetime.now(UTC) + timedelta(hours=STORE_HOURS)).strftime("%Y-%m-%dT%H:%M:%SZ")
    _annotate(connection, resource, ANNOTATION_STORE_UNTIL, until)


def ask_for_merge(connection: Connection, finetune: FineTune, checkpoint: str) -> str:
    """Have a checkpoint merged into the base model. Returns: the request. Raises: CliError."""
    request = f"{checkpoint}@{datetime.now(UTC).strftime('%Y%m%dT%H%M%S.%fZ')}"
    _annotate(connection, finetune, ANNOTATION_MERGE, request)
    return request


def read_token(connection: Connection) -> str | None:
    """The store service's token; None while there is none. Raises: CliError."""
    try:
        secret = connection.ask("GET", f"/api/v1/namespaces/{connection.namespace}/secrets/{STORE_TOKEN_SECRET}")
    except ApiRefusal as error:
        if error.status == 404:
            return None
        if error.status == 403:
            wanted = f"`get` on the Secret {STORE_TOKEN_SECRET} and on services/proxy"
            hint = (
                f"Ask for {wanted} in this namespace; the ClusterRole `edit` has both, docs/uploads.md has the smallest"
            )
            raise CliError(f"You may not use the store service: {error}. {hint}.") from error
        raise
    try:
        return base64.b64decode((secret.get("data") or {})[STORE_TOKEN_KEY], validate=True).decode("ascii")
    except (KeyError, binascii.Error, UnicodeDecodeError) as error:
        message = (
            f"The Secret {STORE_TOKEN_SECRET} has no good {STORE_TOKEN_KEY!r}: delete it; the operator makes it anew."
        )
        raise CliError(message) from error


def _find(connection: Connection, plural: str, kind: str, name: str) -> Obj:
    root = f"/apis/{API_VERSION}/namespaces/{connection.namespace}/{plural}"
    try:
        return connection.ask("GET", f"{root}/{name}")
    except ApiRefusal as error:
        if error.status != 404:
            raise CliError(f"{kind} {name!r} can't be read: {error}") from error
    where = f"in namespace {connection.namespace!r}"
    try:
        items = connection.ask("GET", root)["items"]
    except ApiRefusal as error:
        if error.status == 404:
            raise CliError(NOT_INSTALLED) from error
        raise CliError(f"There is no {kind} {name!r} {where}.") from error
    names = ", ".join(item["metadata"]["name"] for item in items[:_MANY])
    told = f"There are: {names}." if names else "There is none at all; is -n NAMESPACE right?"
    raise CliError(f"There is no {kind} {name!r} {where}. {told}")


def _annotate(connection: Connection, resource: Project | FineTune, key: str, value: str) -> None:
    plural = "projects" if isinstance(resource, Project) else "finetunes"
    path = f"/apis/{API_VERSION}/namespaces/{connection.namespace}/{plural}/{resource.metadata.name}"
    try:
        connection.ask("PATCH", path, {"metadata": {"annotations": {key: value}}}, _MERGE)
    except ApiRefusal as error:
        command = f"kubectl annotate {plural[:-1]} {resource.metadata.name} {key}={value} --overwrite"
        raise CliError(f"The annotation {key} can't be set: {error}. Have somebody run `{command}`.") from error
