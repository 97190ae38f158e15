"""A namespace of a local cluster, and workloads for it."""

from typing import Any

from codetune_local.daemon.trial import TrialCluster

Obj = dict[str, Any]


class Namespace:
    """kubectl in one namespace."""

    def __init__(self, running: TrialCluster, name: str) -> None:
        self.cluster = running
        self.name = name

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments, check=check)

    def apply(self, *objects: Obj) -> None:
        for obj in objects:
            obj["metadata"]["namespace"] = self.name
        self.cluster.apply(*objects)

    def get(self, *arguments: str) -> Any:
        return self.cluster.get("-n", self.name, *arguments)

    def pods(self, label: str) -> list[Obj]:
        found: list[Obj] = self.get("pods", "-l", label)["items"]
        return found

    def wait_until(self, ready: Any, what: str, seconds: float = 20) -> Any:
        return self.cluster.wait_for(ready, what, seconds)

    def wait_for_condition(self, target: str, condition: str, seconds: int = 20) -> None:
        self.kubectl("wait", f"--for=condition={condition}", target, f"--timeout={seconds}s")

    def event_reasons(self, name: str) -> list[str]:
        events = self.get("events", "--field-selector", f"involvedObject.name={name}")["items"]
        return [event["reason"] for event in events]


def container(script: str, **more: Any) -> Obj:
    return {"name": "main", "image": "local/exec", "command": ["sh", "-c", script], **more}


def job(name: str, script: str, *, pod: Obj | None = None, extra: Obj | None = None, **spec: Any) -> Obj:
    """A Job with one shell script; `extra` goes into its container, `pod` into the pod's spec."""
    template = {"restartPolicy": "Never", "containers": [container(script, **(extra or {}))], **(pod or {})}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {**spec, "template": {"spec": template}},
    }


def bare_pod(name: str, script: str, *, extra: Obj | None = None, **spec: Any) -> Obj:
    metadata = {"name": name, "labels": {"app": name}}
    body = {"containers": [container(script, **(extra or {}))], "terminationGracePeriodSeconds": 1, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}


def claim(name: str) -> Obj:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def stored(claim_name: str) -> Obj:
    """Arguments of `job` that mount a claim at /store and tell its path in STORE."""
    return {
        "pod": {"volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": claim_name}}]},
        "extra": {
            "volumeMounts": [{"name": "store", "mountPath": "/store"}],
            "env": [{"name": "STORE", "value": "/store"}],
        },
    }


def running_pods(here: Namespace, label: str) -> list[Obj]:
    """Pods whose containers have processes."""
    return [pod for pod in here.pods(label) if here.cluster.processes_of(pod["metadata"]["uid"])]


SERVER = """
import http.server, os, signal, socketserver, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    def do_GET(self):
        body = os.environ["VERSION"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = False
server = Server((os.environ["CODETUNE_BIND_HOST"], 8000), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
"""


def web_deployment(version: str, replicas: int = 2) -> Obj:
    main = {
        "name": "main",
        "image": "python",
        "command": ["python3", "-c", SERVER],
        "env": [{"name": "VERSION", "value": version}],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    }
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [main]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def web_service() -> Obj:
    spec = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
