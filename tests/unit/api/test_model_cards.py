"""The card of a downloaded model: what it must tell, and that nothing of the code is in it."""

from typing import Any

import pytest
import yaml
from codetune_api.finetune import FineTune
from codetune_api.modelcard import render_card

Obj = dict[str, Any]
COMMIT, DIGEST, REVISION = "c0ffee" * 6 + "c0ff", "sha256:" + "1" * 64, "sha256:" + "a" * 64
PARAMETERS: Obj = {
    "preset": "Smaller", "rank": 16, "alpha": 32, "dropout": 0.01, "targetModules": ["q_proj", "v_proj"],
    "trainEmbeddings": False, "maxSteps": 60, "epochs": 1.5, "sequenceLength": 512, "batchTokens": 2048,
    "learningRate": 1e-3, "scheduler": "Linear", "warmupSteps": 1, "weightDecay": 0, "fimRate": 0.9,
    "precision": "BFloat16", "gradientCheckpointing": False, "seed": 7, "everySteps": 20,
}  # fmt: skip
EVALUATION: Obj = {
    "base": {"loss": 2.0, "exactMatch": 0.25},
    "tuned": {"loss": 1.5, "exactMatch": 0.5},
    "improvement": 0.25,
    "improvementInterval": {"low": 0.2, "high": 0.3},
    "verdict": "Better",
    "files": 12,
}
STATUS: Obj = {
    "phase": "Succeeded",
    "baseModel": {"uri": f"hf://acme/coder@{COMMIT}", "commit": COMMIT},
    "bestCheckpoint": "step-000040",
    "checkpoints": [
        {"name": "step-000040", "step": 40, "uri": "pvc://c/x", "digest": DIGEST},
        {"name": "step-000060", "step": 60, "uri": "pvc://c/y", "digest": "sha256:" + "2" * 64},
    ],
    "parameters": PARAMETERS,
    "evaluation": EVALUATION,
    "dataset": {
        "revision": REVISION,
        "files": 1234,
        "tokens": 5678901,
        "uri": "pvc://codetune-artifacts/team/projects/shop/aaaa",
        "sources": [
            {"name": "backend", "commit": "0123abc"},
            {"name": "vendor", "digest": "sha256:" + "3" * 64},
            {"name": "sent"},
        ],
    },
}


def make_finetune(base: str = "hf://acme/coder@main", status: Obj | None = None) -> FineTune:
    spec = {"projectRef": {"name": "shop"}, "baseModel": base}
    kind = {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune"}
    metadata = {"name": "tuned", "namespace": "team"}
    return FineTune.from_wire(
        {**kind, "metadata": metadata, "spec": spec, "status": STATUS if status is None else status}
    )


def render(finetune: FineTune, checkpoint: int = 0, *, merged: bool = False) -> str:
    return render_card(finetune, finetune.status.checkpoints[checkpoint], merged=merged)


def front_matter(card: str) -> Obj:
    empty, matter, _ = card.split("---\n", 2)
    assert empty == ""
    read: Obj = yaml.safe_load(matter)
    return read


@pytest.mark.parametrize(
    ("expected", "merged"),
    [
        pytest.param(
            {"base_model_relation": "adapter", "library_name": "peft", "tags": ["code", "codetune", "lora"]},
            False,
            id="an adapter",
        ),
        pytest.param(
            {"base_model_relation": "finetune", "library_name": "transformers", "tags": ["code", "codetune"]},
            True,
            id="merged",
        ),
    ],
)
def test_the_front_matter_is_what_the_hub_reads(expected: Obj, merged: bool) -> None:
    common = {"base_model": "acme/coder", "pipeline_tag": "text-generation"}
    assert front_matter(render(make_finetune(), merged=merged)) == {**common, **expected}


def test_a_base_model_that_is_not_on_the_hub_is_not_claimed_to_be() -> None:
    status = {key: value for key, value in STATUS.items() if key != "baseModel"}
    card = render(make_finetune("pvc://models/own/base", status))
    assert "base_model" not in front_matter(card)
    assert "| Base model | `pvc://models/own/base` |" in card


@pytest.mark.parametrize(
    "row",
    [
        f"| Base model | `hf://acme/coder@{COMMIT}` |",
        "| Checkpoint | `step-000040` |",
        f"| Adapter digest | `{DIGEST}` |",
        "| Project | `shop` |",
        f"| Revision | `{REVISION}` |",
        "| Files | `1,234` |",
        "| Tokens | `5,678,901` |",
        "| Source backend | `0123abc` |",
        f"| Source vendor | `sha256:{'3' * 64}` |",
        "| Source sent | `no commit` |",
        "| targetModules | `q_proj, v_proj` |",
        "| learningRate | `0.001` |",
        "| Loss (nats per token) | 2.0000 | 1.5000 |",
        "| Next line, exact match | 0.2500 | 0.5000 |",
        "On 12 files that it was not trained on, the loss is 25.0% lower than the base model's, between 20.0% and "
        "30.0% with 95 % confidence. Verdict: Better.",
    ],
)
def test_the_card_tells(row: str) -> None:
    assert row in render(make_finetune()).splitlines()


def test_scores_that_were_not_taken_are_left_out() -> None:
    assert "Fill-in-the-middle" not in render(make_finetune())


def test_scores_of_another_checkpoint_are_said_to_be() -> None:
    assert "Of the checkpoint step-000040, which is another one than this." in render(make_finetune(), 1)


def test_a_run_that_was_not_evaluated_says_so() -> None:
    card = render(make_finetune(status={"checkpoints": STATUS["checkpoints"]}))
    assert "Not evaluated" in card
    assert "## Data" not in card


def test_no_place_in_the_store_is_told_and_nothing_ends_a_cell() -> None:
    hostile = render(make_finetune("pvc://models/a|b`c\u202e"))
    assert "pvc://codetune-artifacts" not in hostile
    card = render(make_finetune("pvc://models/a|b`c", {"checkpoints": STATUS["checkpoints"]}))
    assert "| Base model | `pvc://models/abc` |" in card.splitlines()
