"""The connection to the API server: kubeconfig, context, namespace, requests."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml
from codetune_api.refusals import say_refusal
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException

from codetune_cli.errors import ApiRefusal, CliError, Interrupted

Obj = dict[str, Any]
Answer = urllib3.BaseHTTPResponse

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 120.0
_MESSAGE_CHARACTERS = 2000
REFUSED_CREDENTIALS = "the credentials of the kubeconfig are refused or have run out, as `kubectl auth whoami` shows"
# The client publishes no types for these.
_load_file: Callable[..., None] = config.load_kube_config
_load_service_account: Callable[..., None] = config.load_incluster_config
_list_contexts: Callable[..., tuple[list[Obj], Obj]] = config.list_kube_config_contexts


@dataclass(frozen=True)
class Connection:
    """An API server with the caller's credentials."""

    namespace: str
    api: ApiClient = field(repr=False)

    def ask(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Obj:
        """One request to the API server itself, and its JSON answer.

        Raises:
            ApiRefusal: It refused.
            Interrupted: It could not be reached.
        """
        data = None if body is None else json.dumps(body).encode()
        content = read_all(self.open(method, path, body=data, headers={"Content-Type": content_type}))
        try:
            found: Obj = json.loads(content)
        except ValueError as error:
            raise self._not_an_api_server("something else than JSON") from error
        return found

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request to the API server itself, whose answer is still to be read.

        Raises:
            ApiRefusal: It refused.
            Interrupted: It could not be reached.
        """
        answer = self.send(method, path, query=query, body=body, headers=headers)
        if answer.status < 400:
            return answer
        content = read_all(answer)
        if not _is_status(content):
            raise self._not_an_api_server(f"HTTP {answer.status}")
        if answer.status == 401:
            raise ApiRefusal(answer.status, f"{read_message(content)}: {REFUSED_CREDENTIALS}")
        raise ApiRefusal(answer.status, read_message(content))

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        read_seconds: float = _READ_SECONDS,
    ) -> Answer:
        """One request, whose answer is still to be read; `read_seconds` may pass without a word of it.

        Raises:
            Interrupted: The API server could not be reached.
        """
        url = f"{self.api.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        sent = {"Accept": "application/json", **self._authorization(), **(headers or {})}
        pool: urllib3.PoolManager = self.api.rest_client.pool_manager
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds)
        try:
            return pool.request(
                method, url, body=body, headers=sent, timeout=timeout, preload_content=False, retries=False
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Interrupted(f"The API server {self.api.configuration.host} can't be reached: {error}") from error

    def _not_an_api_server(self, answer: str) -> CliError:
        """Something else answers, be it a proxy or a login page."""
        host = self.api.configuration.host
        return CliError(
            f"{host} answers with {answer} and not as an API server does: is the kubeconfig's server right?"
        )

    def _authorization(self) -> dict[str, str]:
        """Asked for each request: a token may be renewed meanwhile."""
        settings: dict[str, Any] = dict(self.api.configuration.auth_settings())
        return {
            entry["key"]: entry["value"] for entry in settings.values() if entry["in"] == "header" and entry["value"]
        }


def connect(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Connection:
    """Connect as kubectl would: the given kubeconfig, else KUBECONFIG or ~/.kube/config, else the pod's own account.

    Raises:
        CliError: There is no usable configuration.
    """
    configuration, file = Configuration(), str(kubeconfig) if kubeconfig else None
    try:
        _load_file(config_file=file, context=context, client_configuration=configuration)
        own = namespace or _namespace_of(file, context)
    except (ConfigException, OSError) as error:
        if kubeconfig is not None or context is not None:
            raise CliError(f"The kubeconfig can't be used: {str(error).rstrip('.')}.") from error
        own = namespace or _enter_pod(configuration, error)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, AttributeError) as error:
        # The client takes it for granted that the file holds what a kubeconfig holds.
        said = " ".join(str(error).split())
        raise CliError(f"The kubeconfig can't be used: it is no YAML of a kubeconfig's form: {said}.") from error
    if not configuration.host.startswith(("https://", "http://")):
        raise CliError(f"The kubeconfig can't be used: its cluster's server {configuration.host!r} is no URL.")
    return Connection(own, ApiClient(configuration))


def read_all(answer: Answer) -> bytes:
    """The whole body of an answer. Raises: Interrupted."""
    try:
        return answer.data
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Interrupted(f"The answer broke off: {error}") from error
    finally:
        answer.release_conn()


def _is_status(content: bytes) -> bool:
    """Whether a refusal is an API server's: a metav1.Status, or its words for a path that it does not have."""
    if content.strip() == b"404 page not found":
        return True
    try:
        said = json.loads(content)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("kind") == "Status"


def read_message(content: bytes) -> str:
    """What a refusal says: the message of a metav1.Status, or the text."""
    try:
        message = say_refusal(json.loads(content))
    except (ValueError, AttributeError):
        message = ""
    return (message or content.decode(errors="replace"))[:_MESSAGE_CHARACTERS]


def _namespace_of(file: str | None, context: str | None) -> str:
    contexts, active = _list_contexts(config_file=file)
    chosen = next((found for found in contexts if found["name"] == context), active)
    return str((chosen.get("context") or {}).get("namespace") or "default")


def _enter_pod(configuration: Configuration, before: Exception) -> str:
    try:
        _load_service_account(client_configuration=configuration)
        return Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()
    except (ConfigException, OSError) as error:
        said = str(before).rstrip(".")
        raise CliError(f"There is no cluster to talk to: {said}. Set KUBECONFIG, or give --kubeconfig FILE.") from error
