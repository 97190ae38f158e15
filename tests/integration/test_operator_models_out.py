"""What a run is good for afterwards: another run starts from it, and a person takes the whole model along."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_cli.main import main

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]

pytestmark = pytest.mark.timeout(600)

CODE = {
    f"shop/{name}.py": "".join(f"def {name}_{number}(value):\n    return value + {number}\n\n" for number in range(40))
    for name in ("cart", "order", "stock", "tax", "price", "store")
}


def make_project(team: "Team") -> Obj:
    source = {"name": "app", "git": {"url": team.repository("shop", CODE)}}
    spec = {"sources": [source], "holdout": {"fraction": 0.2}}
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": "Project", "metadata": {"name": "shop"}, "spec": spec}


def make_finetune(name: str, model: str, steps: int, **more: Any) -> Obj:
    spec: Obj = {
        "projectRef": {"name": "shop"},
        "baseModel": model,
        "training": {"maxSteps": steps, "sequenceLength": 64, "batchTokens": 128, "learningRate": 0.01},
        "checkpoints": {"everySteps": 2, "keep": 2},
        "resources": {"gpus": 0, "cpu": "100m", "memory": "3Gi"},
        **more,
    }
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name}, "spec": spec}


def ready(team: "Team", name: str) -> Obj:
    found: Obj = next(
        (entry for entry in team.status("ft", name).get("conditions", []) if entry["type"] == "Ready"), {}
    )
    return found


def test_a_run_starts_from_another_and_holds_it_until_it_is_over(team: "Team", model: str) -> None:
    team.apply(make_project(team), make_finetune("next", model, 4000, resumeFrom={"fineTuneRef": {"name": "first"}}))
    team.wait_until(lambda: ready(team, "next").get("reason") == "FineTuneMissing", "it says what it waits for")

    team.apply(make_finetune("first", model, 4, lora={"rank": 2, "targetModules": ["q_proj"]}))
    first = team.wait_for_phase("ft", "first", "Succeeded", 240)["status"]
    team.wait_until(lambda: team.status("ft", "next").get("checkpoints"), "the next run is at work", 240)
    status = team.status("ft", "next")
    assert status["resumedFrom"]["checkpoint"] == first["bestCheckpoint"]
    assert status["resumedFrom"]["digest"] == first["adapter"]["digest"]
    assert (status["parameters"]["rank"], status["parameters"]["targetModules"]) == (2, ["q_proj"])

    team.kubectl("delete", "ft", "first", "--wait=false")
    team.wait_until(lambda: ready(team, "first").get("reason") == "InUse", "the first run waits for the next")
    assert "FineTune 'next'" in ready(team, "first")["message"]
    folder = team.store() / team.name / "finetunes" / "first"
    assert list(folder.glob("*/checkpoints/*/adapter_model.safetensors"))

    team.kubectl("delete", "ft", "next", "--timeout=120s")
    team.wait_until(lambda: team.is_gone("ft", "first"), "the first run is gone", 120)
    assert not list(folder.glob("*"))


def test_a_whole_model_is_merged_by_a_job_and_downloaded(
    team: "Team", model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    team.apply(make_project(team), make_finetune("first", model, 4))
    status = team.wait_for_phase("ft", "first", "Succeeded", 240)["status"]
    where = ["--kubeconfig", str(team.installation.cluster.kubeconfig), "-n", team.name]

    code = main(["download", "first", "--merged", "-o", str(tmp_path / "model"), *where])

    told = capsys.readouterr()
    assert code == 0, told.err
    assert status["bestCheckpoint"] in told.out
    merged = team.status("ft", "first")["merged"]
    assert (merged["phase"], merged["digest"]) == ("Ready", status["adapter"]["digest"])
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    commit = team.status("cproj", "shop")["sources"][0]["commit"]
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"| Source app | `{commit}` |" in card
    assert "shop/cart.py" not in card
    loaded(tmp_path / "model")
    team.kubectl("delete", "ft", "first", "--timeout=120s")
    assert not list((team.store() / team.name / "finetunes" / "first").glob("*"))


def loaded(folder: Path) -> None:
    """transformers takes it as any other model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)("def cart_1(", return_tensors="pt")
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    assert model(tokens.input_ids).logits.isfinite().all()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
