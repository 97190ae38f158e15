"""The kubeconfig of a local cluster."""

import base64
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import yaml

NAME = "codetune-local"


def write_kubeconfig(path: Path, port: int, token: str, authority: bytes) -> None:
    """Write it for its owner alone, whole or not at all. `authority` is the CA certificate (PEM)."""
    server = {"server": f"https://127.0.0.1:{port}", "certificate-authority-data": base64.b64encode(authority).decode()}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": server}],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
        "current-context": NAME,
    }
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(config, file)
    os.replace(beside, path)


@dataclass(frozen=True)
class Access:
    """How to reach the API."""

    server: str
    token: str
    tls: ssl.SSLContext


def read_kubeconfig(path: Path) -> Access:
    """Server, token and trust of a kubeconfig that `write_kubeconfig` wrote. Raises: FileNotFoundError."""
    config = yaml.safe_load(path.read_text())
    cluster = config["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    return Access(cluster["server"], config["users"][0]["user"]["token"], ssl.create_default_context(cadata=authority))
