"""A ModelDeployment of the tiny model on a local cluster, with the operator as a process of its own beside it."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from codetune_api.contracts import ServerReport

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "hack"))

from laptop import Laptop
from replicas import bearer
from tiny import make_model

Obj = dict[str, Any]
NAME = "coder"
BASE_URI = "file:///tiny"
START_SECONDS = 300.0
_LOOK_SECONDS = 0.5
"""Each look is a kubectl, which takes the processor from what is waited for."""


@dataclass(frozen=True)
class Deployed:
    """The cluster, and how a person and the operator speak to what is served."""

    laptop: Laptop

    @classmethod
    def start(cls, state: Path) -> "Deployed":
        """A cluster with Codetune and the tiny model in it; nothing is served yet."""
        deployed = cls(Laptop(state))
        make_model(deployed.files / "tiny")
        with ExitStack() as undoing:
            undoing.callback(deployed.laptop.stop)
            deployed.laptop.start_cluster()
            small = {"gpus": 0, "cpu": "100m", "memory": "512Mi"}
            settings = {"fileRoot": str(deployed.files), "endpoint": "ClusterIP", "scanResources": small}
            deployed.laptop.start_operator(deployed.laptop.install({"settings": settings}))
            undoing.pop_all()
        return deployed

    @property
    def files(self) -> Path:
        """What `file:///` means."""
        return self.laptop.state / "files"

    def apply(self, *objects: Obj) -> None:
        """kubectl apply."""
        self.laptop.kubectl("apply", "-f", "-", text="\n---\n".join(json.dumps(each) for each in objects))

    def get(self, kind: str, *arguments: str) -> Obj:
        """kubectl get, as JSON."""
        found: Obj = json.loads(self.laptop.kubectl("get", kind, *arguments, "-o", "json"))
        return found

    def status(self, kind: str = "modeldeployment", name: str = NAME) -> Obj:
        """The status of a resource; empty before there is one."""
        found: Obj = self.get(kind, name).get("status") or {}
        return found

    def states(self) -> dict[str, Obj]:
        """Each adapter as status tells it, by name."""
        return {state["name"]: state for state in self.status().get("adapters", [])}

    def wait_until(self, ready: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> Any:
        """Look again and again; returns the first truthy answer. Raises: RuntimeError after too long."""
        deadline = time.monotonic() + seconds
        while not (answer := ready()):
            if time.monotonic() > deadline:
                shown = self.laptop.kubectl("get", "codetune,pods", "-o", "wide")
                log = (self.laptop.state / "operator.log").read_text()[-3000:]
                raise RuntimeError(f"{what} did not come true within {seconds:.0f} s:\n{shown}\n{log}")
            time.sleep(_LOOK_SECONDS)
        return answer

    def wait_for_ready(self, seconds: float = START_SECONDS) -> None:
        """Until the ModelDeployment is Ready as it is asked for now."""
        self.wait_until(self._is_ready, "Ready", seconds)

    def _is_ready(self) -> bool:
        found = self.get("modeldeployment", NAME)
        status = found.get("status") or {}
        current = status.get("observedGeneration") == found["metadata"]["generation"]
        return current and status.get("phase") == "Ready"

    def urls(self) -> list[str]:
        """Where each replica answers, past the Service."""
        selector = f"codetune.dev/modeldeployment={NAME},app.kubernetes.io/component=server"
        pods = self.get("pods", "-l", selector)["items"]
        return [f"http://{pod['status']['podIP']}:8000" for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    def reports(self) -> list[ServerReport]:
        """What the replicas say to the operator."""
        secret = self.get("secret", f"{NAME}-adapter-token")["data"]["token"]
        headers = bearer(base64.b64decode(secret).decode())
        answers = [httpx.get(f"{url}/codetune/adapters", headers=headers, timeout=30) for url in self.urls()]
        return [ServerReport.from_wire(answer.raise_for_status().json()) for answer in answers]

    def kill_operator(self) -> None:
        """SIGKILL."""
        assert self.laptop.operator is not None
        os.killpg(self.laptop.operator.pid, signal.SIGKILL)
        self.laptop.operator.wait()

    def restart_operator(self) -> None:
        """Another process, with the same settings."""
        self.laptop.start_operator(self.laptop.state / "settings.yaml")

    def stop(self) -> None:
        """Stop everything."""
        self.laptop.stop()


def make_resource(kind: str, name: str, spec: Obj, **labels: str) -> Obj:
    """One of our kinds."""
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def make_deployment(*adapters: Obj, **more: Any) -> Obj:
    """Two replicas of the tiny model, each with one thread."""
    spec = {
        "baseModel": BASE_URI,
        "servedModelName": "base",
        "adapters": list(adapters),
        "replicas": 2,
        "engine": {"maxModelLen": 256, "maxLoras": 2},
        "resources": {"gpus": 0, "cpu": "300m"},
        "env": [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"}],
        **more,
    }
    return make_resource("ModelDeployment", NAME, spec)


def make_code(folder: Path) -> str:
    """A git repository of small functions; returns its URL on the local cluster."""
    folder.mkdir(parents=True)
    for name in ("cart", "order", "stock", "tax"):
        code = (f"def {name}_{number}(value):\n    return value + {number}\n\n" for number in range(40))
        (folder / f"{name}.py").write_text("".join(code))
    person = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "Code")):
        subprocess.run(["git", *words], cwd=folder, check=True, env={**os.environ, **person})
    return f"file:///{folder.name}"


def make_project(url: str) -> Obj:
    """The code in a git repository, a part of it held out."""
    return make_resource(
        "Project", "shop", {"sources": [{"name": "shop", "git": {"url": url}}], "holdout": {"fraction": 0.25}}
    )


def make_finetune(name: str, *, steps: int, every: int, **labels: str) -> Obj:
    """A run of a few small steps of the tiny model."""
    spec = {
        "projectRef": {"name": "shop"},
        "baseModel": BASE_URI,
        "lora": {"rank": 4},
        "training": {"maxSteps": steps, "sequenceLength": 64, "batchTokens": 128, "learningRate": 0.01},
        "checkpoints": {"everySteps": every},
        "resources": {"gpus": 0, "cpu": "300m", "memory": "3Gi"},
    }
    return make_resource("FineTune", name, spec, **labels)
