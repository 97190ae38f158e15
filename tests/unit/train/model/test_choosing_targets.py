"""Where LoRA goes in models of different build, and that each of them trains and comes back through plain PEFT."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from codetune_api.finetune import LoraOverrides
from codetune_trainer.errors import InvalidParameters, UnsupportedModel
from codetune_trainer.train.model import targets
from codetune_trainer.train.model.targets import WITHOUT_ADAPTERS, choose_targets, count_experts
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    GPTBigCodeConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
    StableLmConfig,
    Starcoder2Config,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

if TYPE_CHECKING:
    from unit.train.conftest import Store

ATTENTION = ["k_proj", "o_proj", "q_proj", "v_proj"]
MLP = ["down_proj", "gate_proj", "up_proj"]
SMALL = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 256, "eos_token_id": 257,
    "initializer_range": 0.1,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


@pytest.mark.parametrize(
    ("expected", "config"),
    [
        pytest.param(sorted(ATTENTION + MLP), LlamaConfig(**SMALL), id="grouped heads, gated MLP"),
        pytest.param(sorted(ATTENTION + MLP), Qwen2Config(**SMALL, tie_word_embeddings=True), id="tied embeddings"),
        pytest.param(["c_fc", "c_proj", *ATTENTION], Starcoder2Config(**SMALL), id="StarCoder2"),
        pytest.param(
            ["c_attn", "c_fc", "c_proj"],
            GPTBigCodeConfig(vocab_size=264, n_embd=32, n_layer=1, n_head=4, bos_token_id=0, eos_token_id=1),
            id="one head of keys",
            # transformers compiles a function of this model in a way that torch gives up.
            marks=pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning"),
        ),
        pytest.param(ATTENTION, Qwen3MoeConfig(**SMALL, **EXPERTS, head_dim=8), id="experts"),
        pytest.param(
            sorted(ATTENTION + MLP), Qwen2MoeConfig(**SMALL, **EXPERTS), id="experts beside a shared one with a gate"
        ),
        pytest.param(
            ["down_proj", "gate_proj", "kv_a_proj_with_mqa", "o_proj", "q_a_proj", "q_b_proj", "up_proj"],
            DeepseekV2Config(**SMALL),
            id="latent attention",
        ),
    ],
)
def test_an_adapter_goes_on_attention_and_mlps_that_vllm_serves_it_on(expected: list[str], config: Any) -> None:
    found = choose_targets(config, "file:///model")
    assert found.modules == sorted(expected)
    assert bool(found.notes) == (count_experts(config) > 1)


def test_a_model_with_nothing_but_routers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "linear_modules", lambda *_: ["gate"])
    with pytest.raises(UnsupportedModel, match="only gate"):
        choose_targets(LlamaConfig(**SMALL), "file:///model")


def test_a_model_on_which_vllm_serves_no_adapter_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="stablelm model, on which vLLM serves no adapter") as caught:
        choose_targets(StableLmConfig(**SMALL), "file:///model")
    assert "serves with LoRA" in caught.value.hint


_VLLM = find_spec("vllm")


@pytest.mark.skipif(_VLLM is None, reason="vLLM is not installed")
@pytest.mark.parametrize(
    ("expected", "kind"),
    [
        *(pytest.param(False, kind, id=kind) for kind in sorted(WITHOUT_ADAPTERS)),
        *(
            pytest.param(True, kind, id=kind)
            for kind in ("llama", "qwen2", "qwen3_moe", "starcoder2", "gemma", "granite")
        ),
    ],
)
def test_vllm_says_of_its_models_whether_it_serves_adapters_on_them(expected: bool, kind: str) -> None:
    """Its sources are read: to import it takes longer than all of these tests."""
    assert _VLLM is not None
    folder = Path(str(_VLLM.origin)).parent / "model_executor" / "models"
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    named = re.search(rf'"{name}": \(\s*"(\w+)",\s*"(\w+)"', (folder / "registry.py").read_text(encoding="utf-8"))
    if (
        named is None or named[1] == "transformers"
    ):  # its own class for all models of transformers, which takes adapters
        assert expected
        return
    text = (folder / f"{named[1]}.py").read_text(encoding="utf-8")
    classes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    bases, todo = set(), [named[2]]
    while todo:
        new = {ast.unparse(base) for base in classes[todo.pop()].bases} - bases
        bases |= new
        todo += sorted(new & classes.keys())
    assert ("SupportsLoRA" in bases) is expected


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(LlamaConfig(**SMALL, tie_word_embeddings=True, attention_bias=False), id="tied, no bias"),
        pytest.param(Qwen2Config(**SMALL), id="bias"),
        pytest.param(Starcoder2Config(**SMALL), id="StarCoder2"),
        pytest.param(Qwen3MoeConfig(**SMALL, **EXPERTS, head_dim=8), id="experts"),
    ],
)
@pytest.mark.parametrize("precision", ["BFloat16", "Float32"])
def test_models_of_different_build_train_and_come_back_through_peft(
    store: "Store", tmp_path: Path, make_tokenizer: Any, config: Any, precision: str
) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(str(tmp_path / "other"))
    make_tokenizer().save_pretrained(str(tmp_path / "other"))
    store.model = tmp_path / "other"
    store.train(store.config(training={"max_steps": 2, "precision": precision}))
    assert store.status == 0
    folder = store.root / "run" / "checkpoints" / "step-000002"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(store.model), str(folder))
    saved = {name for name in load_file(folder / "adapter_model.safetensors") if "lora_B" in name}
    assert saved == {name.replace(".default", "") for name in model.state_dict() if "lora_B" in name}
    assert not any("embed" in name or "lm_head" in name for name in saved)


def test_rank_stabilized_lora_is_what_the_adapter_says(store: "Store") -> None:
    store.train(store.config(lora=LoraOverrides(rank=4, rs_lora=True), training={"max_steps": 2}))
    folder = store.root / "run" / "checkpoints" / "step-000002"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(store.model), str(folder))
    assert model.peft_config["default"].use_rslora
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == 4.0 / 4**0.5 == 2.0


def test_an_unknown_layer_is_answered_with_those_that_there_are(store: "Store") -> None:
    expected = r"lora\.targetModules names nowhere.*choose from down_proj, gate_proj, k_proj"
    with pytest.raises(InvalidParameters, match=expected):
        store.train(store.config(lora=LoraOverrides(target_modules=["nowhere"])))
