"""What the conformance tests run against, and how they talk to it.

By default the API server of `codetune local`. With `KUBEBUILDER_ASSETS` set (a folder with `etcd` and `kube-apiserver`,
as `setup-envtest` makes it) a real one without controllers; with `--kubeconfig FILE` the cluster of that file, in which
the tests make namespaces, one CRD and a few cluster roles, and remove them again.
"""

import itertools
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from codetune_local.testing import serve
from kubernetes import client, config
from urllib3.exceptions import HTTPError

Obj = dict[str, Any]
GROUP = "conformance.example.com"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CRDS = Path(__file__).parents[2] / "crds"
WIDGETS = f"/apis/{GROUP}/v1/namespaces"
RUN = secrets.token_hex(3)
"""Keeps two runs against one cluster apart."""
UNCHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)
START_SECONDS = 60
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Reply:
    """An answer of the API server."""

    status: int
    body: Any
    headers: Any

    @property
    def message(self) -> str:
        """That of a Status object."""
        return str(self.body.get("message", ""))

    @property
    def causes(self) -> list[tuple[str, str]]:
        """(field, reason) of each cause of a Status object that is about a field."""
        causes = self.body["details"].get("causes", [])
        return [(cause["field"], cause["reason"]) for cause in causes if cause["field"] != "<nil>"]

    @property
    def is_unchecked(self) -> bool:
        """Whether a Status object notes that rules were not looked at."""
        causes = self.body["details"].get("causes", [])
        return ("<nil>", "FieldValueInvalid") in [
            (cause["field"], cause["reason"]) for cause in causes if UNCHECKED in cause["message"]
        ]

    @property
    def warnings(self) -> list[str]:
        """Warning headers."""
        return list(self.headers.getlist("Warning"))


@dataclass
class Api:
    """Requests as they are on the wire, under the credentials of a kubeconfig."""

    kubeconfig: Path
    token: str | None = None
    """Instead of the kubeconfig's credentials."""
    clients: client.ApiClient = field(init=False)
    others: "list[Api]" = field(default_factory=list)

    def __post_init__(self) -> None:
        configuration = client.Configuration()
        load: Any = config.load_kube_config  # publishes no types
        load(str(self.kubeconfig), client_configuration=configuration)
        if self.token is not None:
            configuration.cert_file = configuration.key_file = None
        self.clients = client.ApiClient(configuration)

    def call(
        self, method: str, path: str, body: Any = None, *, content: str = "json", accept: str = "", **query: Any
    ) -> Reply:
        """One request; `content` is json, merge, json-patch, strategic or apply."""
        kinds = {
            "json": "application/json",
            "merge": "application/merge-patch+json",
            "json-patch": "application/json-patch+json",
            "strategic": "application/strategic-merge-patch+json",
            "apply": "application/apply-patch+yaml",
        }
        answer = self._send(
            method, path, body, {"Content-Type": kinds[content], "Accept": accept or "application/json"}, query
        )
        text = answer.data.decode()
        # A real API server calls the index of its schemas plain text.
        is_json = "json" in answer.headers.get("Content-Type", "") or path == "/openapi/v3"
        return Reply(answer.status, json.loads(text) if is_json and text else text, answer.headers)

    def follow(self, path: str, *, accept: str = "application/json", **query: Any) -> Iterator[Obj]:
        """The events of a watch, until the server ends it."""
        answer = self._send("GET", path, None, {"Accept": accept}, {"watch": "true", **query}, preload=False)
        rest = b""
        try:
            for chunk in answer.stream(1):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (json.loads(line) for line in lines if line)
        finally:
            answer.close()

    def as_account(self, token: str) -> "Api":
        """The requests of whoever has this token."""
        other = Api(self.kubeconfig, token)
        self.others.append(other)
        return other

    def close(self) -> None:
        """End all connections."""
        for other in (*self.others, self):
            other.clients.rest_client.pool_manager.clear()

    def _send(self, method: str, path: str, body: Any, headers: Obj, query: Obj, *, preload: bool = True) -> Any:
        configuration = self.clients.configuration
        for setting in configuration.auth_settings().values():
            headers[setting["key"]] = setting["value"]
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        url = configuration.host + path + ("?" + urlencode(query) if query else "")
        data = None if body is None else json.dumps(body).encode()
        pool = self.clients.rest_client.pool_manager
        return pool.request(method, url, headers=headers, body=data, preload_content=preload, timeout=30, retries=False)


# -- control planes


@contextmanager
def _real_control_plane(assets: Path, folder: Path) -> Iterator[Path]:
    """etcd and kube-apiserver of envtest; yields an admin's kubeconfig."""
    peer, etcd_port, port = _free_port(), _free_port(), _free_port()
    token, etcd = secrets.token_hex(16), f"http://127.0.0.1:{etcd_port}"
    (folder / "tokens.csv").write_text(f'{token},conformance-admin,1,"system:masters"\n')
    key = folder / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True, timeout=30)
    peers = f"http://127.0.0.1:{peer}"
    etcd_line = f"""{assets}/etcd --data-dir {folder}/etcd --unsafe-no-fsync
        --listen-client-urls {etcd} --advertise-client-urls {etcd} --listen-peer-urls {peers}
        --initial-advertise-peer-urls {peers} --initial-cluster default={peers}"""
    # The plugin would wait for the ServiceAccount "default", which a controller makes that does not run here.
    server_line = f"""{assets}/kube-apiserver --etcd-servers {etcd} --secure-port {port} --bind-address 127.0.0.1
        --cert-dir {folder}/certificates --authorization-mode RBAC --token-auth-file {folder}/tokens.csv
        --service-account-issuer https://kubernetes.default.svc --service-account-key-file {key}
        --service-account-signing-key-file {key} --service-cluster-ip-range 10.0.0.0/24
        --disable-admission-plugins ServiceAccount"""
    kubeconfig = folder / "kubeconfig"
    certificate = folder / "certificates" / "apiserver.crt"  # which the server makes, with the authority that signed it
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(certificate)}
    _write_kubeconfig(kubeconfig, cluster, token)
    with ExitStack() as stack, (folder / "log").open("wb") as log:
        for line in (etcd_line, server_line):
            process = subprocess.Popen(line.split(), stdout=log, stderr=log)
            stack.callback(process.wait, timeout=30)
            stack.callback(process.terminate)
        what = f"kube-apiserver to be ready; see {folder / 'log'}"
        _wait_until(lambda: certificate.exists() and _is_ready(kubeconfig), what)
        yield kubeconfig


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _write_kubeconfig(path: Path, cluster: Obj, token: str) -> None:
    document: Obj = {"apiVersion": "v1", "kind": "Config", "current-context": "c"}
    document |= {"clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "c", "user": {"token": token}}]}
    path.write_text(yaml.safe_dump({**document, "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]}))


def _is_ready(kubeconfig: Path) -> bool:
    probe = Api(kubeconfig)
    try:
        return probe.call("GET", "/readyz").status == 200
    except (OSError, HTTPError):  # nobody listens yet
        return False
    finally:
        probe.close()


def _wait_until(is_done: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An admin's way into the control plane under test."""
    given, assets = request.config.getoption("--kubeconfig"), os.environ.get("KUBEBUILDER_ASSETS")
    if given:
        yield Path(given)
    elif assets:
        with _real_control_plane(Path(assets), tmp_path_factory.mktemp("envtest")) as path:
            yield path
    else:
        with serve() as path:
            yield path


@pytest.fixture(scope="session")
def api(kubeconfig: Path) -> Iterator[Api]:
    """The admin's requests."""
    found = Api(kubeconfig)
    yield found
    found.close()


@pytest.fixture(scope="session", autouse=True)
def widgets(api: Api) -> Iterator[None]:
    """The CRD of these tests, established."""
    definition = yaml.safe_load((Path(__file__).parent / "widgets.yaml").read_text())
    assert api.call("POST", DEFINITIONS, definition).status == 201
    name = definition["metadata"]["name"]
    _wait_until(lambda: api.call("GET", f"/apis/{GROUP}/v1/widgets").status == 200, "the widgets to be served")
    # Discovery and schemas follow a little later where other threads publish them.
    published = f"/openapi/v3/apis/{GROUP}/v1"
    _wait_until(lambda: '"Widget"' in str(api.call("GET", published).body).replace("'", '"'), "their schema")
    yield
    for left in api.call("GET", f"/apis/{GROUP}/v1/widgets").body[
        "items"
    ]:  # by a test that failed: held, it holds the CRD
        where = f"{WIDGETS}/{left['metadata']['namespace']}/widgets/{left['metadata']['name']}"
        api.call("PATCH", where, {"metadata": {"finalizers": None}}, content="merge")
    api.call("DELETE", f"{DEFINITIONS}/{name}")


@pytest.fixture(scope="session")
def own_kinds(api: Api) -> Iterator[None]:
    """Codetune's definitions; those of a cluster that has it already are left as they are."""
    definitions = [yaml.safe_load(file.read_text()) for file in sorted(CRDS.glob("*.yaml"))]
    statuses = [(found["metadata"]["name"], api.call("POST", DEFINITIONS, found).status) for found in definitions]
    assert {status for _, status in statuses} <= {201, 409}, statuses
    for name, _ in statuses:
        plural, _, group = name.partition(".")
        served = f"/apis/{group}/v1alpha1/{plural}"
        _wait_until(lambda served=served: api.call("GET", served).status == 200, f"{plural} to be served")
    yield
    for name, status in statuses:
        if status == 201:
            api.call("DELETE", f"{DEFINITIONS}/{name}")


@pytest.fixture
def namespace(api: Api, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace."""
    name = f"conformance-{RUN}-{next(_numbers)}"
    assert api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}}).status == 201
    if request.config.getoption("--kubeconfig"):  # with controllers, pods are refused until they have made this
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        _wait_until(lambda: api.call("GET", account).status == 200, account)
    yield name
    api.call("DELETE", f"/api/v1/namespaces/{name}")


@dataclass(frozen=True)
class Kubectl:
    """The real kubectl in one namespace."""

    kubeconfig: Path
    namespace: str
    cache: Path

    def __call__(self, *arguments: str, text: str | Obj | None = None) -> str:
        """What it prints. Raises: AssertionError with what it complains of."""
        done = self.run(*arguments, text=text)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def run(self, *arguments: str, text: str | Obj | None = None) -> "subprocess.CompletedProcess[str]":
        """How it ended."""
        given = json.dumps(text) if isinstance(text, dict) else text
        return subprocess.run(
            self.command(*arguments), input=given, capture_output=True, text=True, timeout=60, check=False
        )

    def command(self, *arguments: str) -> list[str]:
        """Its command line."""
        program = str(Path(sys.executable).parent / "kubectl")
        options = ["--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.cache), "--namespace", self.namespace]
        return [program, *options, *arguments]


@pytest.fixture
def kubectl(kubeconfig: Path, namespace: str, tmp_path: Path) -> Kubectl:
    """kubectl in the fresh namespace."""
    return Kubectl(kubeconfig, namespace, tmp_path / "cache")


@dataclass(frozen=True)
class Widgets:
    """Widgets of one namespace."""

    api: Api
    namespace: str

    def path(self, name: str = "", subresource: str = "") -> str:
        """The path of all, of one, or of a part of one."""
        return "/".join(filter(None, [f"{WIDGETS}/{self.namespace}/widgets", name, subresource]))

    def build(self, name: str, spec: Obj | None = None, **metadata: Any) -> Obj:
        """A widget as a client sends it."""
        about = {"name": name, "namespace": self.namespace, **metadata}
        return {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "metadata": about, "spec": spec or {"model": "a"}}

    def create(self, name: str, spec: Obj | None = None, **metadata: Any) -> Obj:
        """Create one and return it as stored."""
        reply = self.api.call("POST", self.path(), self.build(name, spec, **metadata))
        assert reply.status == 201, reply.body
        body: Obj = reply.body
        return body

    def get(self, name: str) -> Obj:
        """One as it is now."""
        reply = self.api.call("GET", self.path(name))
        assert reply.status == 200, reply.body
        body: Obj = reply.body
        return body

    def patch(self, name: str, body: Any, content: str = "merge", subresource: str = "", **query: Any) -> Reply:
        """A patch."""
        return self.api.call("PATCH", self.path(name, subresource), body, content=content, **query)


@pytest.fixture(name="store")
def _store(api: Api, namespace: str) -> Widgets:
    """Widgets of the fresh namespace."""
    return Widgets(api, namespace)
