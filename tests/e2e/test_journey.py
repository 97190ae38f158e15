"""The main journey on the real parts: local cluster, operator with the chart's RBAC, SmolLM2, real vLLM.

One cluster, one story, told in order: each test goes on where the one before it ended. What is killed here is killed
with SIGKILL, in the middle of its work.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from demo_model import main as make_model
from demo_repository import make_repository
from laptop import Laptop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

MODEL = "file:///SmolLM2-135M-Instruct"
TEAM_KEY = "sk-of-the-plugin-people"


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    state = tmp_path_factory.mktemp("journey")
    files = state / "files"
    assert not make_model([str(files / "SmolLM2-135M-Instruct")])
    make_repository("pluggy", files / "pluggy.git")
    laptop = Laptop(state)
    try:
        laptop.start_cluster()
        laptop.start_operator(laptop.install({"settings": {"fileRoot": str(files), "endpoint": "ClusterIP"}}))
        yield laptop
    finally:
        laptop.stop()


def project(name: str) -> dict[str, Any]:
    source = {"name": "pluggy", "git": {"url": "file:///pluggy.git"}}
    holdout = {"fraction": 0, "paths": ["_tracing.py"]}  # small: it is measured four times
    return resource("Project", name, {"sources": [source], "files": {"types": ["Python"]}, "holdout": holdout})


def finetune(name: str, **spec: Any) -> dict[str, Any]:
    training = {"maxSteps": 6, "sequenceLength": 256, "batchTokens": 512, "warmupSteps": 1, "learningRate": 0.002}
    common = {
        "projectRef": {"name": "pluggy"},
        "baseModel": MODEL,
        "training": training,
        "checkpoints": {"everySteps": 3},
        "resources": {"gpus": 0, "cpu": "2"},
    }
    return resource("FineTune", name, {**common, **spec})


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def apply(laptop: Laptop, *objects: dict[str, Any]) -> str:
    return laptop.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(objects))


def get(laptop: Laptop, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(laptop.kubectl("get", kind, name, "-o", "json"))
    return found


def wait_for(seconds: float, what: str, check: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.5)
    return answer


def processes(laptop: Laptop, *words: str) -> list[psutil.Process]:
    """Processes of the cluster whose command line holds all the words."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        line, environment = process.info["cmdline"] or [], process.info["environ"] or {}
        of_cluster = any(str(laptop.state) in told for told in (*line, *environment.values()))
        if of_cluster and all(any(word in part for part in line) for word in words):
            found.append(process)
    return found


def complete(laptop: Laptop, model: str, prompt: str) -> str:
    endpoint = get(laptop, "modeldeployment", "coder")["status"]["endpoint"]
    body = {"model": model, "prompt": prompt, "max_tokens": 32, "temperature": 0}
    request = urllib.request.Request(
        f"{endpoint}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        text: str = json.load(answer)["choices"][0]["text"]
    return text


def condition(found: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions = {entry["type"]: entry for entry in found.get("status", {}).get("conditions", [])}
    return conditions.get(kind, {})


def test_a_fine_tune_waits_for_its_project_and_then_trains(laptop: Laptop) -> None:
    apply(laptop, finetune("pluggy"))
    wait_for(30, "waiting for data", lambda: phase(laptop, "pluggy") == "WaitingForData")
    apply(laptop, project("pluggy"))
    laptop.kubectl("wait", "--for=condition=Ready", "--timeout=300s", "project/pluggy")
    status = get(laptop, "project", "pluggy")["status"]
    assert status["revision"].startswith("sha256:")
    assert status["files"]["trained"] > 0 < status["files"]["heldOut"]
    wait_for(600, "the first checkpoint", lambda: checkpoints(laptop, "pluggy"))


def phase(laptop: Laptop, name: str) -> str:
    return str(get(laptop, "finetune", name).get("status", {}).get("phase"))


def checkpoints(laptop: Laptop, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(laptop, "finetune", name).get("status", {}).get("checkpoints", [])
    return found


def test_a_killed_trainer_goes_on_from_its_checkpoint_and_a_killed_operator_makes_nothing_twice(laptop: Laptop) -> None:
    (trainer,) = processes(laptop, "codetune_trainer", "train")
    os.kill(trainer.pid, signal.SIGKILL)
    assert laptop.operator is not None
    os.killpg(laptop.operator.pid, signal.SIGKILL)
    laptop.operator.wait()
    laptop.start_operator(laptop.state / "settings.yaml")
    laptop.kubectl("wait", "--for=condition=Ready", "--timeout=600s", "finetune/pluggy")
    status = get(laptop, "finetune", "pluggy")["status"]
    assert (status["phase"], status["restarts"], status["progress"]["percent"]) == ("Succeeded", 1, 100)
    jobs = json.loads(laptop.kubectl("get", "jobs", "-l", "codetune.dev/finetune=pluggy", "-o", "json"))["items"]
    assert [job["metadata"]["name"] for job in jobs] == [status["jobName"]]
    steps = [point["step"] for point in status["lossHistory"]]
    assert steps == sorted(set(steps))


def test_the_evaluation_compares_tuned_with_base_on_held_out_files(laptop: Laptop) -> None:
    evaluation = get(laptop, "finetune", "pluggy")["status"]["evaluation"]
    base, tuned = evaluation["base"]["loss"], evaluation["tuned"]["loss"]
    assert evaluation["improvement"] == pytest.approx((base - tuned) / base, abs=1e-4)
    assert evaluation["improvement"] > 0


def test_losses_and_logs_are_shown_while_there_are_pods_and_when_they_are_gone(laptop: Laptop) -> None:
    history = get(laptop, "finetune", "pluggy")["status"]["lossHistory"]
    steps = [line.partition(",")[0] for line in codetune(laptop, "plot", "pluggy", "-o", "csv").splitlines()[1:]]
    assert steps == [str(point["step"]) for point in history]
    assert "pluggy: Succeeded at step 6 of 6 (100 %)" in codetune(laptop, "plot", "pluggy", "--follow")

    printed = codetune(laptop, "logs", "pluggy")  # of the attempt that went on
    assert "event=resumed" in printed
    assert codetune(laptop, "logs", "pluggy", "--follow") == printed
    laptop.kubectl("delete", "pods", "-l", "codetune.dev/finetune=pluggy")
    kept = codetune(laptop, "logs", "pluggy")
    assert kept.count("event=result") == 1
    assert kept.index("step=1 ") < kept.index("event=resumed") < kept.index("event=result")


def codetune(laptop: Laptop, *words: str, **environment: str) -> str:
    """`kubectl codetune …`, which must succeed."""
    line = [sys.executable, "-m", "codetune_cli", *words, "--kubeconfig", str(laptop.kubeconfig)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_base_and_tuned_model_answer_and_a_wrong_adapter_is_named(laptop: Laptop) -> None:
    other = finetune("other", baseModel="hf://someone/else", suspend=True)
    adapters = [
        {"name": "tuned", "fineTuneRef": {"name": "pluggy"}},
        {"name": "foreign", "fineTuneRef": {"name": "other"}},
    ]
    spec = {
        "baseModel": MODEL,
        "servedModelName": "base",
        "adapters": adapters[:1],
        "engine": {"maxModelLen": 512},
        "resources": {"gpus": 0, "cpu": "1500m"},  # of two cores; the gateway needs some too
    }
    apply(laptop, other, resource("ModelDeployment", "coder", spec))
    laptop.kubectl("wait", "--for=condition=Ready", "--timeout=600s", "modeldeployment/coder")
    prompt = "class PluginManager:\n    def register("
    base, tuned = complete(laptop, "base", prompt), complete(laptop, "tuned", prompt)
    assert base != tuned
    file = write_prompt(laptop, prompt)
    assert codetune(laptop, "complete", "coder", file, "--max-tokens", "32") == tuned
    both = codetune(laptop, "complete", "coder", file, "--max-tokens", "32", "--compare")
    assert both.startswith(f"==> base <==\n{base.rstrip()}")
    assert f"==> tuned <==\n{tuned.rstrip()}" in both

    apply(laptop, resource("ModelDeployment", "coder", {**spec, "adapters": adapters}))
    wait_for(
        120, "AdapterIncompatible", lambda: adapter_state(laptop, "foreign").get("reason") == "AdapterIncompatible"
    )
    assert adapter_state(laptop, "tuned")["phase"] == "Ready"
    assert complete(laptop, "tuned", prompt)
    apply(laptop, resource("ModelDeployment", "coder", spec))
    laptop.kubectl("wait", "--for=condition=Ready", "--timeout=120s", "modeldeployment/coder")


def write_prompt(laptop: Laptop, prompt: str) -> str:
    """A file that ends where something is to be completed."""
    file = laptop.state / "prompt.py"
    file.write_text(prompt)
    return str(file)


def adapter_state(laptop: Laptop, name: str) -> dict[str, Any]:
    states = get(laptop, "modeldeployment", "coder").get("status", {}).get("adapters", [])
    return next((state for state in states if state["name"] == name), {})


def test_a_team_completes_with_the_model_of_its_project_and_with_nothing_else(laptop: Laptop) -> None:
    tuned = {"deploymentRef": {"name": "coder"}, "model": "tuned"}
    spec = {
        "apiKeysSecretRef": {"name": "plugin-people"},
        "projects": [{"projectRef": {"name": "pluggy"}, "completionModel": tuned}],
    }
    apply(laptop, resource("Team", "plugin-people", spec))
    wait_for(
        60, "no keys", lambda: condition(get(laptop, "team", "plugin-people"), "Ready").get("reason") == "NoApiKeys"
    )
    laptop.kubectl("create", "secret", "generic", "plugin-people", f"--from-literal=ide={TEAM_KEY}")
    laptop.kubectl("wait", "--for=condition=Ready", "--timeout=120s", "team/plugin-people")

    prompt = "class PluginManager:\n    def register("
    assert ask_team(laptop, "project/pluggy", prompt) == (200, complete(laptop, "tuned", prompt))
    words = ["complete", "--team", "plugin-people", write_prompt(laptop, prompt), "--max-tokens", "32"]
    completed = codetune(laptop, *words, "--project", "pluggy", CODETUNE_API_KEY=TEAM_KEY)
    assert completed == complete(laptop, "tuned", prompt)
    for expected, model, key in ((401, "project/pluggy", "sk-guessed"), (404, "base", TEAM_KEY), (400, "", TEAM_KEY)):
        assert ask_team(laptop, model, prompt, key=key)[0] == expected

    apply(laptop, resource("Team", "plugin-people", {**spec, "completionModel": {"deploymentRef": {"name": "coder"}}}))
    wait_for(60, "a default", lambda: ask_team(laptop, "default", prompt) == (200, complete(laptop, "base", prompt)))


def ask_team(laptop: Laptop, model: str, prompt: str, *, key: str = TEAM_KEY) -> tuple[int, str]:
    """Status and text, or the error, that the team's gateway answers with."""
    endpoint = get(laptop, "team", "plugin-people")["status"]["endpoint"]
    body = {"model": model, "prompt": prompt, "max_tokens": 32, "temperature": 0}
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(f"{endpoint}/v1/completions", json=body, headers=headers, timeout=600)
    said = answer.json()
    return answer.status_code, said["choices"][0]["text"] if answer.is_success else said["error"]["message"]


def test_kubectl_get_codetune_shows_all_kinds(laptop: Laptop) -> None:
    shown = laptop.kubectl("get", "codetune")
    for name in ("project/pluggy", "finetune/pluggy", "modeldeployment/coder", "team/plugin-people"):
        kind, _, own = name.partition("/")
        assert f"{kind}.codetune.dev/{own}" in shown
    described = laptop.kubectl("describe", "finetune", "pluggy")
    assert "Improvement" in described
    assert "Succeeded" in described


def test_plain_peft_loads_the_adapter(laptop: Laptop) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = store(laptop) / get(laptop, "finetune", "pluggy")["status"]["adapter"]["uri"].split("/", 3)[3]
    base = AutoModelForCausalLM.from_pretrained(laptop.state / "files" / "SmolLM2-135M-Instruct")
    tokens = torch.arange(8)[None]
    before = base(input_ids=tokens).logits
    after = PeftModel.from_pretrained(base, str(folder))(input_ids=tokens).logits
    assert not torch.allclose(before, after)


def store(laptop: Laptop) -> Path:
    return Path(laptop.local("path", "default/codetune-artifacts").strip())


def test_a_killed_server_comes_back_with_its_adapter(laptop: Laptop) -> None:
    for process in processes(laptop, "vllm.entrypoints"):
        process.kill()
    wait_for(60, "not ready", lambda: get(laptop, "modeldeployment", "coder")["status"].get("readyReplicas", 0) == 0)
    laptop.kubectl("wait", "--for=condition=Ready", "--timeout=600s", "modeldeployment/coder")
    assert complete(laptop, "tuned", "def ") == ask_team(laptop, "project/pluggy", "def ")[1]


def test_deleting_removes_children_and_artifacts_and_the_namespace_does_not_hang(laptop: Laptop) -> None:
    root = store(laptop)
    laptop.kubectl("delete", "team,modeldeployment,finetune,project", "--all", "--timeout=120s")
    assert not list(root.glob("default/finetunes/*/*"))
    assert not list(root.glob("default/projects/*"))
    selector = "app.kubernetes.io/managed-by=codetune,app.kubernetes.io/component!=purge"
    kinds = "jobs,deployments,services,configmaps,pods"
    wait_for(60, "children are gone", lambda: not laptop.kubectl("get", kinds, "-l", selector, "-o", "name"))

    laptop.kubectl("create", "namespace", "team")
    laptop.kubectl("apply", "-n", "team", "-f", "-", text=yaml.safe_dump_all([project("pluggy"), finetune("pluggy")]))
    wait_for(30, "a scan", lambda: laptop.kubectl("get", "jobs", "-n", "team", "-o", "name"))
    laptop.kubectl("delete", "namespace", "team", "--timeout=90s")


def test_nothing_is_left_running_after_down(laptop: Laptop) -> None:
    laptop.stop()
    assert not [process for process in processes(laptop) if process.pid != os.getpid()]
