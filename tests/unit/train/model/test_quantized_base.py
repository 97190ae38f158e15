"""QLoRA: an adapter in float32 on a base model whose linear layers are held in 4 bits.

bitsandbytes has a CPU backend, on which this is slow and, here, good enough; a run on a CPU is refused all the same.
"""

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bitsandbytes
import pytest
import torch
from codetune_api.finetune import LoraOverrides, Parameters
from codetune_trainer.errors import InvalidParameters
from codetune_trainer.train import run
from codetune_trainer.train.model.modelling import load_base
from peft import PeftModel
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

if TYPE_CHECKING:
    from unit.train.conftest import Store

# transformers asks the hub's library of kernels for one that nothing here needs.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
CPU = torch.device("cpu")


def test_linear_layers_are_in_4_bits_and_the_head_the_norms_and_the_embeddings_are_not(quantizable: "Store") -> None:
    model = load_base(quantizable.model, "x", "Float32", CPU, quantized=True)
    kinds = {name.rsplit(".", 1)[-1]: type(module) for name, module in model.named_modules()}
    assert {kinds[name] for name in ("q_proj", "o_proj", "down_proj")} == {bitsandbytes.nn.Linear4bit}
    assert type(model.get_output_embeddings()) is torch.nn.Linear
    assert model.model.layers[0].self_attn.q_proj.weight.quant_type == "nf4"
    assert model.get_input_embeddings().weight.dtype == torch.float32
    assert not any(weight.requires_grad for weight in model.parameters())


def test_a_run_on_it_learns_and_leaves_an_adapter_for_the_base_as_it_is(
    quantizable: "Store", monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = run.resolve

    def resolve_quantized(*arguments: Any) -> Parameters:
        return resolve(*arguments).model_copy(update={"quantization": "Nf4"})

    quantizable.train(quantizable.config("whole", training={"max_steps": 20}))
    monkeypatch.setattr(run, "resolve", resolve_quantized)
    quantizable.train(quantizable.config(training={"max_steps": 20}))
    assert quantizable.result.parameters.quantization == "Nf4"
    assert quantizable.evaluation.improvement > 0.1
    assert quantizable.losses()[20] == pytest.approx(quantizable.losses("whole")[20], rel=0.2)
    served = _load(quantizable, quantizable.root / "run" / "checkpoints" / quantizable.result.best_checkpoint)
    tokens = torch.tensor([[100, 101, 102, 32]])
    assert not torch.equal(served(tokens), _load(quantizable, None)(tokens))


def _load(quantizable: "Store", adapter: Path | None) -> Any:
    """Logits of the base as it is, or of it with an adapter, by transformers and PEFT alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(quantizable.model, dtype=torch.float32)
    model = (model if adapter is None else PeftModel.from_pretrained(model, str(adapter))).eval()
    return lambda tokens: model(input_ids=tokens).logits.detach()


def test_an_image_without_the_library_says_so(quantizable: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    with pytest.raises(InvalidParameters, match="no bitsandbytes"):
        load_base(quantizable.model, "x", "Float32", CPU, quantized=True)


def test_a_run_without_a_gpu_is_refused(quantizable: "Store") -> None:
    with pytest.raises(InvalidParameters, match=r"Nf4, which needs a GPU: set resources\.gpus"):
        quantizable.train(quantizable.config(lora=LoraOverrides(rank=4, quantization="Nf4")))


def test_a_mixture_of_experts_is_refused_whose_experts_would_stay_as_they_are(
    quantizable: "Store", tmp_path: Path
) -> None:
    shape = {"vocab_size": 264, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 16}
    experts = {"num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    base = AutoModelForCausalLM.from_config(Qwen3MoeConfig(**shape, **experts))
    folder = Path(shutil.copytree(quantizable.model, tmp_path / "experts"))
    base.save_pretrained(str(folder))
    held = load_base(folder, "x", "Float32", CPU, quantized=True)
    kept = {name for name, weight in held.named_parameters() if "experts" in name and weight.dtype == torch.float32}
    assert {name.rsplit(".", 1)[-1] for name in kept} == {"gate_up_proj", "down_proj"}
    quantizable.model = folder
    with pytest.raises(InvalidParameters, match="the 4 experts of the base model"):
        quantizable.train(quantizable.config(lora=LoraOverrides(rank=4, quantization="Nf4")))
