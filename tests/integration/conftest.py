"""Codetune installed on a local cluster: its CRDs and RBAC from the real chart, its operator as a process of its own.

The operator has nothing but its ServiceAccount's token, so the chart's RBAC is evaluated on every request.
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import apply_chart, write_operator_kubeconfig
from codetune_local.daemon.trial import TrialCluster, cluster

Obj = dict[str, Any]

_numbers = itertools.count(1)


@dataclass
class Installation:
    """The cluster with Codetune in it."""

    cluster: TrialCluster
    folder: Path
    file_root: Path
    """What `file:///` means."""
    settings: Path
    kubeconfig: Path
    """With the operator's token."""
    metrics: str
    """Where the operator answers scrapes."""
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> str:
        """What the operator has logged so far."""
        return (self.folder / "operator.log").read_text()

    def start_operator(self) -> None:
        """Start the operator."""
        line = [sys.executable, "-m", "codetune_operator", "--settings", str(self.settings), "--metrics", self.metrics]
        with (self.folder / "operator.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*line, "--kubeconfig", str(self.kubeconfig)], stdout=log, stderr=subprocess.STDOUT
            )

    def end_operator(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end. Returns: the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        self.process = None
        return code

    @contextmanager
    def without_operator(self) -> Iterator[None]:
        """Nobody is at work meanwhile."""
        self.end_operator(signal.SIGTERM)
        try:
            yield
        finally:
            self.start_operator()


class Team:
    """A namespace and what a person does in it."""

    def __init__(self, installation: Installation, name: str) -> None:
        self.installation = installation
        self.name = name

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        """kubectl in this namespace."""
        return self.installation.cluster.kubectl("-n", self.name, *arguments, text=text, check=check)

    def apply(self, *objects: Obj) -> None:
        """kubectl apply."""
        self.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(objects))

    def get(self, *arguments: str) -> Any:
        """kubectl get, as JSON."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def names(self, kind: str) -> list[str]:
        """Names of all objects of a kind."""
        return [obj["metadata"]["name"] for obj in self.get(kind)["items"]]

    def status(self, kind: str, name: str) -> Obj:
        """The status of a resource; empty before there is one."""
        found: Obj = self.get(kind, name).get("status") or {}
        return found

    def wait_for_phase(self, kind: str, name: str, phase: str, seconds: float = 60) -> Obj:
        """Until a resource has this phase for its current generation. Returns: the resource."""

        def look() -> Obj | None:
            obj: Obj = self.get(kind, name)
            status = obj.get("status") or {}
            current = status.get("observedGeneration") == obj["metadata"]["generation"]
            return obj if current and status.get("phase") == phase else None

        found: Obj = self.wait_until(look, f"{kind} {name} is {phase}", seconds)
        return found

    def wait_until(self, ready: Any, what: str, seconds: float = 60) -> Any:
        """Look again and again. Returns: the first truthy answer."""
        try:
            return self.installation.cluster.wait_for(ready, what, seconds)
        except AssertionError as error:
            shown = self.kubectl("get", "codetune,jobs,pods,events", "-o", "wide", check=False)
            raise AssertionError(f"{error}\n{shown}\n{self.installation.log[-4000:]}") from error

    def is_gone(self, kind: str, name: str) -> bool:
        """Whether an object does not exist any more."""
        return not self.kubectl("get", kind, name, "--ignore-not-found", "-o", "name")

    def store(self) -> Path:
        """The folder behind the namespace's artifact store."""
        command = [sys.executable, "-m", "codetune_local.main", "local", "path", f"{self.name}/codetune-artifacts"]
        state = self.installation.cluster.state.path
        done = subprocess.run([*command, "--state", str(state)], capture_output=True, text=True, check=True, timeout=60)
        return Path(done.stdout.strip())

    def repository(self, name: str, files: dict[str, str]) -> str:
        """A git repository with one commit. Returns: its URL."""
        folder = self.installation.file_root / self.name / name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / ".git").exists():
            git(folder, "init", "--quiet", "--initial-branch=main")
        commit(folder, files)
        return f"file:///{self.name}/{name}"


def commit(folder: Path, files: dict[str, str]) -> None:
    """Add files in one commit; none makes no commit."""
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    if files:
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "Change")


def git(folder: Path, *arguments: str) -> None:
    """Run git, whatever the account's own configuration is."""
    person = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **person, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, env=environment, timeout=60)


def install(running: TrialCluster, folder: Path) -> Installation:
    """Everything of the chart but the operator's Deployment."""
    file_root = folder / "files"
    file_root.mkdir()
    settings = {
        "endpoint": "ClusterIP",
        "fileRoot": str(file_root),
        "scanResources": {"gpus": 0, "cpu": "100m", "memory": "512Mi"},
    }
    (folder / "settings.yaml").write_text(apply_chart(running.kubectl, {"settings": settings}))
    write_operator_kubeconfig(running.kubectl, running.kubeconfig, folder / "operator.kubeconfig")
    with socket.create_server(("127.0.0.1", 0)) as found:
        metrics = f"http://127.0.0.1:{found.getsockname()[1]}/metrics"
    return Installation(running, folder, file_root, folder / "settings.yaml", folder / "operator.kubeconfig", metrics)


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One cluster with a running operator, for all tests."""
    state = tmp_path_factory.mktemp("cluster")
    with cluster(state, "--job-backoff", "0.5", "--restart-backoff", "0.5", "--gpus", "0") as running:
        installed = install(running, tmp_path_factory.mktemp("installation"))
        installed.start_operator()
        yield installed
        if installed.process is not None:
            installed.end_operator(signal.SIGTERM)


@pytest.fixture
def team(installation: Installation) -> Iterator[Team]:
    """A namespace of its own, with a running operator."""
    if installation.process is None:
        installation.start_operator()
    made = Team(installation, f"team-{next(_numbers)}")
    installation.cluster.kubectl("create", "namespace", made.name)
    yield made
    installation.cluster.kubectl("delete", "namespace", made.name, "--wait=false", check=False)


@pytest.fixture(scope="session")
def model(installation: Installation) -> str:
    """A random Llama with a byte-level tokenizer below the file root. Returns: its URI."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = installation.file_root / "tiny"
    torch.manual_seed(0)
    shape: Obj = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=264, max_position_embeddings=256, bos_token_id=256, eos_token_id=257, **shape)
    LlamaForCausalLM(config).save_pretrained(str(folder))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(str(folder))
    return "file:///tiny"
