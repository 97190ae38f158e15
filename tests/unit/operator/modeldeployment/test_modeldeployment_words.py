"""vLLM's last words: recorded ones of vLLM 0.32, and what a person is told to change.

Those marked as quoted need a GPU; they stand here as vLLM's source words them.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from codetune_operator.reconcile.failures import classify
from codetune_operator.reconcile.vllmwords import explain_words

Obj = dict[str, Any]
RECORDED: dict[str, str] = json.loads((Path(__file__).parent / "recorded" / "vllm-0.32-words.json").read_text())

NOT_FREE = (
    "ValueError: Free memory on device cuda:0 (10.5/79.1 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 71.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
CPU_SHORT = (
    "ValueError: Available memory on node 0 (3.2/16.0 GiB) on kv cache allocation is less than requested memory for kv "
    "(4.0 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other processes."
)
NO_ESTIMATE = (
    "ValueError: To serve at least one request with the model's max seq len (32768), (7.0 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (0.01 GiB). Try increasing `gpu_memory_utilization`"
)
CUDA = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.02 GiB. GPU 0 has a total capacity of 79.11 GiB"
HEADS = "Value error, Total number of attention heads (28) must be divisible by tensor parallel size (8)."
ARCHITECTURE = "ValueError: Model architectures ['NobodyForCausalLM'] are not supported for now. Supported archi"
BFLOAT16 = "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU"
GATED = "OSError: You are trying to access a gated repo. Make sure to have access to it at https://huggingface.co/x/y"
MISMATCH = (
    "Value error, Quantization method specified in the model config (awq) does not match the quantization method "
    "specified in the `quantization` argument (gptq)."
)
LOCATION = (
    "OSError: Invalid repository ID or local directory specified: '/codetune/models/x'. Please verify the following"
)

UNREADABLE = "codetune-server: This pod runs as user 65532, which may not read /codetune/models/x/model.safetensors"
WORDS = [
    pytest.param("OutOfMemory", ["4000000", "2.86", "1.0", "1397888"], RECORDED["kv-cache-too-small"], id="KV cache"),
    pytest.param("OutOfMemory", ["engine.maxModelLen or raise"], NO_ESTIMATE, id="KV cache, no length fits (quoted)"),
    pytest.param("OutOfMemory", ["gpuMemoryUtilization"], RECORDED["no-memory-for-cache"], id="no KV cache at all"),
    pytest.param("OutOfMemory", ["10.5", "79.1", "another program"], NOT_FREE, id="GPU not free (quoted)"),
    pytest.param("OutOfMemory", ["3.2", "resources.memory"], CPU_SHORT, id="node's memory (quoted)"),
    pytest.param("OutOfMemory", ["CUDA out of memory", "maxModelLen"], CUDA, id="CUDA (quoted)"),
    pytest.param("InvalidParameters", ["5120", "at most 512 tokens"], RECORDED["too-long"], id="maxModelLen too long"),
    pytest.param("InvalidParameters", ["divides 28", "8"], HEADS, id="gpus that do not divide (quoted)"),
    pytest.param("InvalidParameters", ["float16"], BFLOAT16, id="dtype (quoted)"),
    pytest.param("InvalidParameters", ["engine.quantization"], RECORDED["quantization"], id="quantization"),
    pytest.param("InvalidParameters", ["engine.quantization"], MISMATCH, id="another quantization (quoted)"),
    pytest.param("InvalidParameters", ["--no-such-option", "extraArgs"], RECORDED["unknown-argument"], id="argument"),
    pytest.param("InvalidParameters", ["--max-lora-rank"], RECORDED["wrong-argument"], id="value of an argument"),
    pytest.param("UnsupportedModel", ["nobody", "image"], RECORDED["unknown-model-type"], id="model type"),
    pytest.param("UnsupportedModel", ["NobodyForCausalLM"], ARCHITECTURE, id="architecture (quoted)"),
    pytest.param("UnsupportedModel", ["Foo"], "ValueError: Foo does not support LoRA yet.", id="no LoRA (quoted)"),
    pytest.param("ModelNotFound", ["/codetune/models/nothere"], RECORDED["no-such-folder"], id="no such folder"),
    pytest.param("ModelNotFound", ["/codetune/models/x"], LOCATION, id="no config (quoted)"),
    pytest.param("ModelNotFound", ["user 65532", "/codetune/models/x", "chmod"], UNREADABLE, id="root's alone"),
    pytest.param("GatedModel", ["modelSecretRef"], GATED, id="gated"),
    pytest.param("DiskFull", ["disk"], "OSError: [Errno 28] No space left on device: '/x'", id="disk"),
]


@pytest.mark.parametrize(("reason", "told", "words"), WORDS)
def test_known_words_say_what_to_change(reason: str, told: list[str], words: str) -> None:
    failure = explain_words(words)
    assert failure is not None
    assert failure.reason == reason
    for part in told:
        assert part in f"{failure.message} {failure.hint}"
    assert failure.hint


@pytest.mark.parametrize("words", ["", "ValueError: boom", RECORDED["engine-failed"]])
def test_unknown_words_are_not_explained(words: str) -> None:
    assert explain_words(words) is None


def test_a_kv_cache_that_does_not_fit_names_the_length_that_does() -> None:
    failure = explain_words(RECORDED["kv-cache-too-small"])
    assert failure is not None
    assert failure.hint.startswith("Reduce engine.maxModelLen to 1397888 or raise engine.gpuMemoryUtilization")


def make_pod(words: str, container: str = "server", code: int = 1) -> Obj:
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    entry = {"name": container, "state": state, "restartCount": 2, "image": "x"}
    ended = {"terminated": {"exitCode": code, "message": words, "reason": "Error"}}
    status = {"phase": "Running", "containerStatuses": [{**entry, "lastState": ended}]}
    return {"metadata": {"name": "p"}, "spec": {}, "status": status}


def test_a_crashing_server_is_explained_by_its_last_words() -> None:
    failure = classify([make_pod(RECORDED["kv-cache-too-small"])])
    assert failure is not None
    assert failure.reason == "OutOfMemory"
    unknown = classify([make_pod("ValueError: boom")])
    assert unknown is not None
    assert (unknown.reason, "ValueError: boom" in unknown.message) == ("CrashLoop", True)


def test_they_count_when_vllm_ends_in_good_order_too() -> None:
    failure = classify([make_pod(RECORDED["kv-cache-too-small"], code=0)])
    assert failure is not None
    assert failure.reason == "OutOfMemory"


def test_the_words_of_others_are_not_vllms() -> None:
    failure = classify([make_pod(RECORDED["kv-cache-too-small"], "train")])
    assert failure is not None
    assert failure.reason == "CrashLoop"
