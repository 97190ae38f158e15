"""`files.quality`, from `kubectl apply` to the status: the real operator, a real scan, a tiny random model.

Left out: fetching from a hub, which test_fetch_models.py has, and the Job's shape, which test_project_quality.py has.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]

CODE = {
    "cart.py": "def total(items):\n    return sum(item.price * item.count for item in items)\n",
    "order.py": "class Order:\n    def __init__(self, items):\n        self.items = items\n",
    "tax.py": "x = 1\n",
}


def save_model(folder: Path) -> None:
    """A random model with one token a byte: every text has a loss of about 5.6."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    made: Any = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4, bos_token_id=256, eos_token_id=257))
    made.save_pretrained(str(folder))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>")])
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(str(folder))


def make_project(url: str, model: str, **quality: Any) -> Obj:
    return {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "Project",
        "metadata": {"name": "shop"},
        "spec": {
            "sources": [{"name": "app", "git": {"url": url}}],
            "files": {"quality": {"baseModel": model, **quality}},
            "holdout": {"fraction": 0},
        },
    }


def rejections(project: Obj) -> dict[str, int]:
    """Reason → files."""
    return {row["reason"]: row["files"] for row in project["status"].get("rejections", [])}


def test_a_limit_in_spec_decides_what_a_model_lets_through(team: "Team") -> None:
    save_model(team.installation.file_root / team.name / "tiny")
    url, model = team.repository("shop", CODE), f"file:///{team.name}/tiny"

    team.apply(make_project(url, model, maxLoss=1.5))
    strict = team.wait_for_phase("cproj", "shop", "Ready")
    assert (rejections(strict), strict["status"]["files"]["trained"]) == ({"LowQuality": 2}, 1)

    team.apply(make_project(url, model, maxLoss=20))
    generous = team.wait_for_phase("cproj", "shop", "Ready")
    assert (rejections(generous), generous["status"]["files"]["trained"]) == ({}, 3)


def test_a_model_that_is_not_there_is_the_projects_failure(team: "Team") -> None:
    team.apply(make_project(team.repository("shop", CODE), "file:///nowhere"))
    failure = team.wait_for_phase("cproj", "shop", "Failed")["status"]["failure"]

    assert failure["reason"] == "ModelNotFound"
    assert "file:///nowhere" in failure["message"]
    assert "baseModel" in failure["hint"]
