"""The kubeconfig of a local cluster."""

import os
from pathlib import Path

import yaml

NAME = "codetune-local"


def write_kubeconfig(path: Path, port: int, token: str) -> None:
    """Write it for its owner alone, whole or not at all."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
        "current-context": NAME,
    }
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(config, file)
    os.replace(beside, path)
