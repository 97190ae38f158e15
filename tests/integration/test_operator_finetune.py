"""FineTunes, from `kubectl apply` to the adapter in the store: the real operator and trainer, a tiny random model.

Left out: GPUs that are there, and Kueue; both are tested without a cluster.
"""

import itertools
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.contracts import CheckpointManifest

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]

pytestmark = pytest.mark.timeout(300)

CODE = {
    f"shop/{name}.py": "".join(f"def {name}_{number}(value):\n    return value + {number}\n\n" for number in range(40))
    for name in ("cart", "order", "stock", "tax", "price", "store")
}
SLOW = {"maxSteps": 4000}
"""Longer than any test: it is stopped on the way."""


def make_project(team: "Team", **more: Any) -> Obj:
    source = {"name": "app", "git": {"url": team.repository("shop", CODE)}}
    spec = {"sources": [source], "holdout": {"fraction": 0.2}, **more}
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": "Project", "metadata": {"name": "shop"}, "spec": spec}


def make_finetune(model: str, *, training: Obj | None = None, **more: Any) -> Obj:
    spec: Obj = {
        "projectRef": {"name": "shop"},
        "baseModel": model,
        "lora": {"rank": 4},
        "training": {"maxSteps": 6, "sequenceLength": 64, "batchTokens": 128, "learningRate": 0.01, **(training or {})},
        "checkpoints": {"everySteps": 2, "keep": 2},
        "resources": {"gpus": 0, "cpu": "100m", "memory": "3Gi"},
        **more,
    }
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": "mine"}, "spec": spec}


def conditions(obj: Obj) -> dict[str, Obj]:
    return {entry["type"]: entry for entry in obj["status"]["conditions"]}


def run_folder(team: "Team") -> Path:
    """Where the artifacts of the run are, or were."""
    return team.store() / team.name / "finetunes" / "mine"


def training_processes(team: "Team") -> list[int]:
    """Process ids of the containers of this namespace."""
    cluster = team.installation.cluster
    return [pid for pod in team.get("pods")["items"] for pid in cluster.processes_of(pod["metadata"]["uid"])]


def patch(team: "Team", **spec: Any) -> None:
    team.kubectl("patch", "ft", "mine", "--type=merge", "-p", json.dumps({"spec": spec}))


def test_a_run_waits_for_its_project_trains_and_is_removed_with_its_artifacts(team: "Team", model: str) -> None:
    team.apply(make_finetune(model))
    waiting = team.wait_for_phase("ft", "mine", "WaitingForData")
    assert conditions(waiting)["Ready"]["reason"] == "ProjectMissing"

    team.apply(make_project(team))
    team.kubectl("wait", "--for=condition=Ready", "ft/mine", "--timeout=240s")

    found = team.get("ft", "mine")
    status = found["status"]
    assert (status["phase"], status["progress"]["percent"], status["progress"]["step"]) == ("Succeeded", 100, 6)
    assert status["dataset"]["revision"] == team.status("cproj", "shop")["revision"]
    assert (status["parameters"]["rank"], status["adapter"]["rank"], status["restarts"]) == (4, 4, 0)
    assert conditions(found).keys() == {"Ready"}
    assert "failure" not in status
    base, tuned = status["evaluation"]["base"]["loss"], status["evaluation"]["tuned"]["loss"]
    assert tuned < base
    assert status["evaluation"]["improvement"] == pytest.approx((base - tuned) / base, abs=1e-3)
    steps = [point["step"] for point in status["lossHistory"]]
    assert steps == sorted(set(steps))
    assert steps[-1] == 6

    for entry in status["checkpoints"]:
        manifest = json.loads((team.store() / entry["uri"].split("/", 3)[3] / "MANIFEST.json").read_text())
        assert CheckpointManifest.model_validate(manifest).digest() == entry["digest"]
    assert status["adapter"]["digest"] in {entry["digest"] for entry in status["checkpoints"]}

    told = team.kubectl("describe", "ft", "mine")
    for word in ("WaitingForData", "Started", "Succeeded", "Improvement"):
        assert word in told
    assert team.names("jobs") == [status["jobName"]]

    team.kubectl("delete", "ft", "mine", "--timeout=90s")
    assert not list(run_folder(team).glob("*"))
    team.wait_until(lambda: not team.names("jobs") and not team.names("pods"), "no child is left")
    assert not [name for name in team.names("configmaps") if name.startswith("mine-")]


def test_kill_9_of_trainer_and_operator_loses_no_checkpoint_and_makes_nothing_twice(team: "Team", model: str) -> None:
    team.apply(make_project(team), make_finetune(model, training=SLOW))
    team.wait_until(lambda: team.status("ft", "mine").get("checkpoints"), "there is a checkpoint", 180)
    job = team.status("ft", "mine")["jobName"]

    team.installation.end_operator(signal.SIGKILL)
    (trainer,) = training_processes(team)
    os.kill(trainer, signal.SIGKILL)
    known = {entry.name for entry in run_folder(team).glob("*/checkpoints/step-*")}
    team.installation.start_operator()

    def resumed() -> Obj | None:
        status = team.status("ft", "mine")
        running = status.get("phase") == "Running" and status["restarts"] == 1
        return status if running and status["latestCheckpoint"] > max(known) else None

    status = team.wait_until(resumed, "the run went on from its checkpoint", 180)
    assert team.names("jobs") == [job] == [status["jobName"]]
    steps = [point["step"] for point in status["lossHistory"]]
    assert steps == sorted(set(steps))
    assert status["startedAt"]
    reasons = {event["reason"] for event in team.get("events")["items"]}
    assert {"Started", "Restarted"} <= reasons


def test_a_suspended_run_stops_keeps_its_checkpoint_and_goes_on(team: "Team", model: str) -> None:
    team.apply(make_project(team), make_finetune(model, training=SLOW, deletionPolicy="Retain"))
    team.wait_until(lambda: team.status("ft", "mine").get("checkpoints"), "there is a checkpoint", 180)

    patch(team, suspend=True)
    team.wait_for_phase("ft", "mine", "Suspended")
    team.wait_until(lambda: not training_processes(team), "the trainer has stopped")
    held = team.status("ft", "mine")
    assert held["conditions"][0]["reason"] == "Suspended"
    assert "remaining" not in held

    patch(team, suspend=False)

    def goes_on() -> bool:
        status = team.status("ft", "mine")
        return bool(status["phase"] == "Running" and status["progress"]["step"] > held["progress"]["step"])

    team.wait_until(goes_on, "the run goes on", 180)
    assert {"Suspended", "Resumed"} <= {event["reason"] for event in team.get("events")["items"]}
    assert team.status("ft", "mine")["jobName"] == held["jobName"]

    team.kubectl("delete", "ft", "mine", "--timeout=90s")
    assert list(run_folder(team).glob("*/checkpoints/step-*/adapter_model.safetensors"))
    team.wait_until(lambda: not training_processes(team), "the trainer is gone")


def test_two_nodes_train_together_and_go_on_after_the_death_of_one(team: "Team", model: str) -> None:
    resources = {"gpus": 0, "nodes": 2, "cpu": "100m", "memory": "3Gi"}
    training = {"maxSteps": 200, "earlyStopping": {"patience": 1000}}
    checkpoints = {"everySteps": 25, "keep": 2}
    team.apply(
        make_project(team), make_finetune(model, training=training, checkpoints=checkpoints, resources=resources)
    )
    team.wait_until(lambda: team.status("ft", "mine").get("checkpoints"), "there is a checkpoint", 180)
    index = "batch.kubernetes.io/job-completion-index"
    (second,) = [pod for pod in team.get("pods")["items"] if pod["metadata"]["labels"].get(index) == "1"]
    (launcher,) = team.installation.cluster.processes_of(second["metadata"]["uid"])

    os.kill(launcher, signal.SIGKILL)

    done = team.wait_for_phase("ft", "mine", "Succeeded", 180)["status"]
    assert (done["progress"]["step"], done["progress"]["percent"]) == (200, 100)
    assert done["parameters"]["processes"] == 2
    assert done["restarts"] == 1
    assert "went on from step-" in done["progress"]["message"]
    steps = [point["step"] for point in done["lossHistory"]]
    assert steps == sorted(set(steps))
    assert steps[-1] == 200


def test_a_base_model_that_does_not_exist_fails_at_once_and_says_so(team: "Team", model: str) -> None:
    team.apply(make_project(team), make_finetune(f"{model}-nowhere"))

    failed = team.wait_for_phase("ft", "mine", "Failed", 120)

    failure = failed["status"]["failure"]
    assert failure["reason"] == conditions(failed)["Stalled"]["reason"] == "ModelNotFound"
    assert failure["hint"]
    assert failed["status"]["restarts"] == 0
    assert len(team.names("pods")) == 1
    assert "ModelNotFound" in team.kubectl("describe", "ft", "mine")


def test_an_adapter_of_a_run_that_failed_is_refused_by_name(team: "Team", model: str) -> None:
    base = f"{model}-nowhere"
    adapter = {"name": "tuned", "fineTuneRef": {"name": "mine"}}
    spec = {"baseModel": base, "adapters": [adapter], "replicas": 0, "resources": {"gpus": 0}}
    api = {"apiVersion": "codetune.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "coder"}}
    team.apply(make_project(team), make_finetune(base), {**api, "spec": spec})
    team.wait_for_phase("ft", "mine", "Failed", 120)

    def refused() -> Obj | None:
        states = team.status("mdep", "coder").get("adapters", [])
        return next((state for state in states if state["phase"] == "Failed"), None)

    told = team.wait_until(refused, "the deployment says so")
    assert (told["name"], told["reason"]) == ("tuned", "AdapterFailed")
    assert "ModelNotFound" in told["message"]


def test_a_project_without_an_accepted_file_is_the_reason_to_wait(team: "Team", model: str) -> None:
    team.apply(make_project(team, files={"types": ["Haskell"]}), make_finetune(model))
    team.wait_for_phase("cproj", "shop", "Failed")

    def told() -> Obj | None:
        entry = conditions(team.get("ft", "mine"))["Ready"]
        return entry if "failed" in entry["message"] else None

    entry = team.wait_until(told, "the run says why it waits")
    assert entry["reason"] == "ProjectNotReady"
    assert team.status("cproj", "shop")["failure"]["message"] in entry["message"]
    assert team.status("ft", "mine")["phase"] == "WaitingForData"


def test_too_many_gpus_are_told_with_what_there_is_and_the_run_heals_when_fewer_are_asked(
    team: "Team", model: str
) -> None:
    team.apply(make_project(team), make_finetune(model, resources={"gpus": 64}))
    queued = team.wait_for_phase("ft", "mine", "Queued")
    failure = queued["status"]["failure"]
    assert failure["reason"] == conditions(queued)["Ready"]["reason"] == "Unschedulable"
    assert "64 nvidia.com/gpu" in failure["message"]
    assert "0 nvidia.com/gpu" in failure["message"]
    assert "spec.resources.gpus" in failure["hint"]
    assert conditions(queued).keys() == {"Ready", "Reconciling"}
    former = queued["status"]["jobName"]

    patch(team, resources={"gpus": 0, "cpu": "100m", "memory": "3Gi"})

    healed = team.wait_for_phase("ft", "mine", "Succeeded", 180)
    assert "failure" not in healed["status"]
    assert team.names("jobs") == [healed["status"]["jobName"]] != [former]
    assert not [name for name in team.names("configmaps") if name == former]


def test_the_operator_has_every_right_that_it_uses_for_runs(team: "Team", model: str) -> None:
    team.apply(make_finetune(model, suspend=True))
    team.wait_for_phase("ft", "mine", "WaitingForData")
    team.kubectl("delete", "ft", "mine", "--timeout=60s")

    lines = team.installation.log.splitlines()
    for wrong in ("forbidden", "traceback"):
        around = [lines[max(0, at - 2) : at + 20] for at, line in enumerate(lines) if wrong in line.lower()]
        assert not list(itertools.chain.from_iterable(around))
