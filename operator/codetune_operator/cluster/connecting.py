"""The connection to the API server: address, credentials, requests, and errors in the operator's own terms."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException

from codetune_operator.cluster.refusals import translate_refusal
from codetune_operator.errors import SettingsError, TemporaryError

Obj = dict[str, Any]

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
_CONNECTIONS = 256
# The client publishes no types for these two.
_load_file: Callable[..., None] = config.load_kube_config
_load_service_account: Callable[..., None] = config.load_incluster_config


@dataclass(frozen=True)
class Cluster:
    """An API server with the operator's credentials."""

    api: ApiClient = field(repr=False)
    count: Callable[[str, str, int | None], None] = field(default=lambda method, path, status: None, repr=False)
    """Is told of each request and the status of its answer, or None where there was none; from any thread."""

    @property
    def configuration(self) -> Configuration:
        """Address and credentials."""
        configuration: Configuration = self.api.configuration
        return configuration

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        seconds: float = _CONNECT_SECONDS + _READ_SECONDS,
    ) -> Obj:
        """One request and its JSON answer; blocks, for up to `seconds`, so it is called in a thread.

        Raises:
            OperatorError: The server refused, or could not be reached.
        """
        data = None if body is None else json.dumps(body).encode()
        timeout = urllib3.Timeout(total=seconds, connect=_CONNECT_SECONDS, read=_READ_SECONDS)
        response = self._request(method, path, query, data, {"Content-Type": content_type}, timeout)
        try:
            content = response.data
        except urllib3.exceptions.HTTPError as error:
            raise TemporaryError(f"{method} {path}: the answer broke off: {error}") from error
        if response.status >= 400:
            raise translate_refusal(response.status, content, f"{method} {path}")
        answer: Obj = json.loads(content)
        return answer

    def stream(self, path: str, query: Sequence[tuple[str, str]], *, read_seconds: float) -> urllib3.BaseHTTPResponse:
        """A request whose answer is read piece by piece by the caller, who closes it.

        Raises:
            OperatorError: The server refused, or could not be reached.
        """
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds)
        response = self._request("GET", path, dict(query), None, {"Accept": "*/*"}, timeout)
        if response.status >= 400:
            try:
                content = response.data
            except urllib3.exceptions.HTTPError as error:
                raise TemporaryError(f"GET {path}: the answer broke off: {error}") from error
            raise translate_refusal(response.status, content, f"GET {path}")
        return response

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        headers: dict[str, str],
        timeout: urllib3.Timeout,
    ) -> urllib3.BaseHTTPResponse:
        url = f"{self.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": JSON, **self._authorization(), **headers}
        pool: urllib3.PoolManager = self.api.rest_client.pool_manager
        try:
            response = pool.request(
                method, url, body=data, headers=headers, timeout=timeout, preload_content=False, retries=False
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self.count(method, path, None)
            raise TemporaryError(f"{method} {path}: the API server can't be reached: {error}") from error
        self.count(method, path, response.status)
        return response

    def _authorization(self) -> dict[str, str]:
        """Asked for each request: a ServiceAccount's token is renewed on disk."""
        settings: dict[str, Any] = dict(self.configuration.auth_settings())
        return {
            entry["key"]: entry["value"] for entry in settings.values() if entry["in"] == "header" and entry["value"]
        }


def connect(kubeconfig: Path | None) -> Cluster:
    """Connect with a kubeconfig, or from inside a pod with its ServiceAccount.

    Raises:
        SettingsError: Neither is there, or the kubeconfig is no good.
    """
    configuration = Configuration()
    try:
        if kubeconfig is not None:
            _load_file(config_file=str(kubeconfig), client_configuration=configuration)
        else:
            _load_service_account(client_configuration=configuration)
    except (ConfigException, OSError) as error:
        where = f"The kubeconfig {kubeconfig} is no good" if kubeconfig else "Not inside a pod"
        said = str(error).rstrip(".")
        raise SettingsError(f"{where}: {said}. Give a working one with --kubeconfig FILE.") from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, AttributeError) as error:
        # The client takes it for granted that the file holds what a kubeconfig holds.
        said = " ".join(str(error).split())
        raise SettingsError(f"The kubeconfig {kubeconfig} is no YAML of a kubeconfig's form: {said}.") from error
    configuration.connection_pool_maxsize = _CONNECTIONS
    return Cluster(ApiClient(configuration))
