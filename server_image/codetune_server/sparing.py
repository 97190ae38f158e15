"""Keeps the adapters of others off the base model's requests on a CPU, where vLLM 0.32 does not.

A token without an adapter has the slot -1. vLLM's kernels for GPUs leave it out; what a CPU computes with instead takes
it for the last slot, whose adapter then changes what the base model says: whenever both are in one batch, and always
where that adapter is on the output head. vLLM calls `spare_base` in each of its processes: it is an entry point of the
group `vllm.general_plugins`. What else vLLM mixes up there is mended with it (`scoring.py`).
"""

import functools
import importlib
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from codetune_server import scoring
from codetune_server.settings import ENV_DEVICE

logger = logging.getLogger(__name__)

_MODULES = ("vllm.lora.ops.torch_ops.lora_ops", "vllm.lora.punica_wrapper.punica_cpu")
"""Where the operations are looked up by those who use them."""
_OPERATIONS = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")
_MARK = "codetune_spares_base"


def spare_base(environment: Mapping[str, str] = os.environ) -> None:
    """Mend vLLM's operations in this process, once, where it computes on a CPU."""
    if environment.get(ENV_DEVICE) == "cpu":
        for name in _MODULES:
            mend(importlib.import_module(name))
        scoring.mend_later(importlib.import_module(_MODULES[-1]))


def mend(module: Any) -> None:
    """Put mended operations in the place of a module's own; what another version has not is told, and left out."""
    for name in _OPERATIONS:
        operation = getattr(module, name, None)
        if operation is None:
            logger.warning(
                "This vLLM has no %s in %s, which Codetune mends in 0.32: adapters may change what the base model says "
                "beside them. Serve with vLLM 0.32, or don't ask for the base model where there are adapters.",
                name,
                module.__name__,
            )
        elif not hasattr(operation, _MARK):
            setattr(module, name, _sparing(operation))


def _sparing(operation: Callable[..., None]) -> Callable[..., None]:
    """The operation, with zeros for what goes into it without an adapter: nothing comes of them, whatever the slot."""

    @functools.wraps(operation)
    def spared(inputs: Any, weights: Any, output: Any, slots: Any, *more: Any, **named: Any) -> None:
        operation(inputs.masked_fill((slots < 0).unsqueeze(1), 0), weights, output, slots, *more, **named)

    setattr(spared, _MARK, True)
    return spared
