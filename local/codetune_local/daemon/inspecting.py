"""What `codetune local status` and `path` ask the running cluster, over its API."""

import json
import urllib.error
import urllib.request
from typing import Any

from codetune_local.daemon.kubeconfig import read_kubeconfig
from codetune_local.daemon.state import StateError, StateFolder


def get_json(state: StateFolder, path: str) -> dict[str, Any]:
    """GET a path of the API with the administrator's token. Raises: StateError."""
    try:
        access = read_kubeconfig(state.kubeconfig)
    except FileNotFoundError as error:
        raise StateError(
            f"no cluster was started in {state.path}: run `codetune local up --state {state.path}`"
        ) from error
    request = urllib.request.Request(access.server + path, headers={"Authorization": f"Bearer {access.token}"})
    try:
        with urllib.request.urlopen(request, timeout=10, context=access.tls) as answer:
            content: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise StateError(str(json.load(error).get("message", error.reason))) from error
    except OSError as error:
        raise StateError(f"the cluster of {state.path} does not answer: start it with `codetune local up`") from error
    return content


def find_claim_path(state: StateFolder, namespace: str, claim: str) -> str:
    """The host folder behind a bound claim. Raises: StateError."""
    found = get_json(state, f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}")
    volume = found["spec"].get("volumeName")
    if not volume:
        phase = found.get("status", {}).get("phase", "Pending")
        raise StateError(
            f"claim {namespace}/{claim} is {phase}: `kubectl describe pvc -n {namespace} {claim}` says why"
        )
    folder: str = get_json(state, f"/api/v1/persistentvolumes/{volume}")["spec"]["hostPath"]["path"]
    return folder


def print_status(state: StateFolder, pid: int) -> None:
    """One line for the daemon, one for the node, one for each pod. Raises: StateError."""
    node = get_json(state, "/api/v1/nodes")["items"][0]
    amounts = node.get("status", {}).get("allocatable", {})
    has = ", ".join(f"{name} {amounts[name]}" for name in ("cpu", "memory", "nvidia.com/gpu") if name in amounts)
    print(
        f"\nDaemon: process {pid}, {get_json(state, '/version')['gitVersion']}\nNode:   {has}\nState:  {state.path}\n"
    )
    pods = get_json(state, "/api/v1/pods")["items"]
    rows = [("NAMESPACE", "POD", "PHASE", "ADDRESS")]
    rows += [
        (
            pod["metadata"]["namespace"],
            pod["metadata"]["name"],
            pod.get("status", {}).get("phase", "Pending"),
            pod.get("status", {}).get("podIP", ""),
        )
        for pod in pods
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows if pods else ():
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    if not pods:
        print("No pods.")
