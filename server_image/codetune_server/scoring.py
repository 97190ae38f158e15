"""Gives each prompt that is scored (`prompt_logprobs`, `echo` with `logprobs`) the adapter of its own request on a CPU.

vLLM 0.32 scores prompts one by one, but leaves the output head's adapters as they are set for the tokens that are
sampled: one slot for each request of the batch, where there is one row for each token of a prompt. Two requests in a
batch then end the engine; with a prompt of just as many tokens as there are requests, each of its tokens is given the
adapter of another one.
"""

import functools
import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)

_RUNNER = "vllm.v1.worker.gpu_model_runner"
"""Runs models on a CPU too."""
_MARK = "codetune_scores_one_by_one"
Score = Callable[[Any, Any, dict[str, int]], dict[str, Any]]


def mend_later(module: Any) -> None:
    """Mend vLLM's runner when the first wrapper of LoRA operations is made, once.

    That is in the processes that compute, where the runner is loaded then; loading it takes all others a second.

    Args:
        module: The one with the wrapper for CPUs; another version's that has none stays as it is, which is told.
    """
    wrapper = getattr(module, "PunicaWrapperCPU", None)
    if wrapper is None:
        _tell_left("PunicaWrapperCPU")
        return
    if hasattr(wrapper.__init__, _MARK):
        return
    make = wrapper.__init__

    @functools.wraps(make)
    def made(self: Any, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        mend(importlib.import_module(_RUNNER).GPUModelRunner)

    setattr(made, _MARK, True)
    wrapper.__init__ = made


def mend(runner: Any) -> None:
    """Put a mended method in the place of a runner class's own; one that has none stays as it is, which is told."""
    score = getattr(runner, "_get_prompt_logprobs_dict", None)
    if score is None:
        _tell_left("_get_prompt_logprobs_dict")
    elif not hasattr(score, _MARK):
        runner._get_prompt_logprobs_dict = _one_by_one(score)


def _tell_left(name: str) -> None:
    logger.warning(
        "This vLLM has no %s, which Codetune mends in 0.32: scores of prompts may be those of another request's "
        "adapter. Serve with vLLM 0.32, or don't trust prompt_logprobs.",
        name,
    )


def _one_by_one(score: Score) -> Score:
    """The method, called for each request by itself while the output head has that request's adapter only."""

    @functools.wraps(score)
    def scored(runner: Any, hidden: Any, scheduled: dict[str, int]) -> dict[str, Any]:
        asked: dict[str, int] = runner.num_prompt_logprobs
        wrappers = _wrappers(runner)
        if not asked or not wrappers:
            return score(runner, hidden, scheduled)
        told: dict[str, Any] = {}
        try:
            for request in [request for request in asked if request in scheduled]:
                runner.num_prompt_logprobs = {request: asked[request]}
                row = runner.input_batch.req_id_to_index[request]
                with _slot_of(wrappers, int(runner.query_start_loc.np[row])):
                    told |= score(runner, hidden, scheduled)
                if request not in runner.num_prompt_logprobs:
                    del asked[request]  # its prompt is through
        finally:
            runner.num_prompt_logprobs = asked
        return told

    setattr(scored, _MARK, True)
    return scored


def _wrappers(runner: Any) -> list[Any]:
    """What applies adapters; nothing where vLLM serves none."""
    manager = getattr(runner, "lora_manager", None)
    return [*manager._adapter_manager.punica_wrapper_mapping.values()] if manager is not None else []


@contextmanager
def _slot_of(wrappers: list[Any], token: int) -> Iterator[None]:
    """While this lasts, the output head has one slot for all rows: that of a token of the batch.

    One and not one for each row: the operations copy an adapter's weights for each slot that they are told.
    """
    before = [(wrapper._sampler_indices, wrapper.indices_len[1]) for wrapper in wrappers]
    for wrapper in wrappers:
        wrapper._sampler_indices, wrapper.indices_len[1] = wrapper._token_lora_indices[token : token + 1], 1
    try:
        yield
    finally:
        for wrapper, (indices, length) in zip(wrappers, before, strict=True):
            wrapper._sampler_indices, wrapper.indices_len[1] = indices, length
