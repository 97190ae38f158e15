"""What vLLM's own last words mean, and what to change. Pure.

The texts are those of vLLM 0.32, as its engine leaves them in the termination log (`codetune_server.speaking`) or as
they stand at the end of the container's log. Another release may word them otherwise: what is not known is told as it
is, as a crash.
"""

import re
from collections.abc import Callable

from codetune_api.common import Failure, FailureReason
from codetune_api.unreadable import MAKE_READABLE

Explain = Callable[[re.Match[str]], Failure]

_FREE_MEMORY = (
    "Raise engine.gpuMemoryUtilization (on CPU: resources.memory), split the model over more GPUs with resources.gpus, "
    "or use a smaller or quantized model."
)


def explain_words(words: str) -> Failure | None:
    """The failure that a server's last words tell of; None when they are not known."""
    text = " ".join(words.split())
    for pattern, explain in _KNOWN:
        if match := pattern.search(text):
            return explain(match)
    return None


def _short_of_cache(match: re.Match[str]) -> Failure:
    length, needed, available, fitting = match.groups()
    reduce = f"Reduce engine.maxModelLen to {fitting}" if fitting else "Reduce engine.maxModelLen"
    return Failure(
        reason="OutOfMemory",
        message=f"One request of {length} tokens needs {needed} GiB of KV cache, and {available} GiB are free for it.",
        hint=f"{reduce} or raise engine.gpuMemoryUtilization (on CPU: VLLM_CPU_KVCACHE_SPACE in env, and "
        "resources.memory).",
    )


def _too_long(match: re.Match[str]) -> Failure:
    asked, possible = match.groups()
    return Failure(
        reason="InvalidParameters",
        message=f"engine.maxModelLen is {asked}, and the model takes sequences of at most {possible} tokens.",
        hint=f"Set engine.maxModelLen to {possible} or less, or leave it out.",
    )


def _indivisible(match: re.Match[str]) -> Failure:
    heads, gpus = match.groups()
    return Failure(
        reason="InvalidParameters",
        message=f"The model has {heads} attention heads, which can't be split over resources.gpus: {gpus}.",
        hint=f"Set resources.gpus to a number that divides {heads}.",
    )


def _say(reason: FailureReason, message: str, hint: str) -> Explain:
    """An explanation with the groups of the match put in as {0}, {1}, …"""

    def explain(match: re.Match[str]) -> Failure:
        groups = [group or "" for group in match.groups()]
        return Failure(reason=reason, message=message.format(*groups)[:2000], hint=hint.format(*groups)[:2000])

    return explain


_KNOWN: tuple[tuple[re.Pattern[str], Explain], ...] = tuple(
    (re.compile(pattern), explain)
    for pattern, explain in (
        (
            r"max seq len \((\d+)\), \(?([\d.]+) GiB KV cache is needed, which is larger than the available KV cache "
            r"memory \(([\d.]+) GiB\)(?:\..{0,80}?estimated maximum model length is (\d+))?",
            _short_of_cache,
        ),
        (
            r"No available memory for the cache blocks",
            _say("OutOfMemory", "The model's weights leave no memory for the KV cache.", _FREE_MEMORY),
        ),
        (
            r"Free memory on device \S* ?\(([\d.]+)/([\d.]+) GiB\) on startup is less than",
            _say(
                "OutOfMemory",
                "Only {0} of the GPU's {1} GiB are free: another program uses it.",
                "Free the GPU, or lower engine.gpuMemoryUtilization to what is left of it.",
            ),
        ),
        (
            r"Available memory on node \S+ \(([\d.]+)/([\d.]+) GiB\) on kv cache allocation is less than requested "
            r"memory for kv \(([\d.]+)",
            _say(
                "OutOfMemory",
                "The KV cache is to have {2} GiB, and {0} of the node's {1} GiB are free.",
                "Lower VLLM_CPU_KVCACHE_SPACE in env, or ask for more with resources.memory.",
            ),
        ),
        (
            r"((?:CUDA|HIP|XPU) out of memory\.?[^.]{0,120})",
            _say("OutOfMemory", "The GPU's memory is full: {0}.", f"Reduce engine.maxModelLen. {_FREE_MEMORY}"),
        ),
        (
            r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len "
            r"\(\w+=([\d]+)",
            _too_long,
        ),
        (r"attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)", _indivisible),
        (
            r"model type `([^`]{1,80})` but Transformers does not recognize this architecture",
            _say(
                "UnsupportedModel",
                "This server's vLLM does not know models of the type {0}.",
                "Serve another model, or set image to a server image with a newer vLLM.",
            ),
        ),
        (
            r"Model architectures (\[[^\]]{1,200}\]) (?:are not supported|failed)",
            _say(
                "UnsupportedModel",
                "This server's vLLM does not serve models of the architecture {0}.",
                "Serve another model, or set image to a server image with a newer vLLM.",
            ),
        ),
        (
            r"(\w{1,80}) does not support LoRA",
            _say(
                "UnsupportedModel",
                "vLLM can't put LoRA adapters on models of the class {0}.",
                "Serve a model that takes LoRA adapters.",
            ),
        ),
        (
            r"(?:cannot access gated repo|gated repo|401 Client Error|GatedRepoError)",
            _say(
                "GatedModel",
                "The model's hub asks for an access token that may read it.",
                "Accept the model's licence on the hub, and set modelSecretRef to a Secret with the key `token`.",
            ),
        ),
        (
            r"(?:Repo id must be in the form .{0,80}?: |Invalid repository ID or local directory specified: )'([^']+)'",
            _say(
                "ModelNotFound",
                "There is no model in {0}: no config.json lies there.",
                "Correct the path in baseModel; the folder holds config.json, the tokenizer and the weights.",
            ),
        ),
        (
            # Our own words: explain_unreadable().
            r"runs as user (\d+), which may not read (\S{1,300})",
            _say(
                "ModelNotFound",
                "The pod runs as user {0}, which may not read {1}.",
                MAKE_READABLE,
            ),
        ),
        (
            r"Bfloat16 is only supported on GPUs",
            _say(
                "InvalidParameters",
                "This GPU can't compute in bfloat16.",
                "Set engine.dtype to float16, or use a newer GPU.",
            ),
        ),
        (
            r"(Cannot find the config file for \w+|Unknown quantization method: \w+|"
            r"Quantization method specified in the model config .{0,200}? does not match)",
            _say(
                "InvalidParameters",
                "engine.quantization does not suit this model: {0}.",
                "Remove engine.quantization: a quantized model says itself how it was quantized.",
            ),
        ),
        (
            r"error: (unrecognized arguments: .{1,300}|argument -.{1,300})",
            _say("InvalidParameters", "vLLM refuses its arguments: {0}", "Correct engine.extraArgs."),
        ),
        (
            r"No space left on device",
            _say("DiskFull", "The node's disk is full.", "Make room on the node, or schedule the pods elsewhere."),
        ),
    )
)
