"""Arguments of vLLM that a spec may not give in `engine.extraArgs`, and what to write instead."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from codetune_api.model import rules

EngineArgument = Annotated[str, Field(max_length=1024)]

_OURS = "remove it: the operator sets it, because adapters are swapped with it"
OWNED_ARGUMENTS: Mapping[str, str] = {
    "model": "set baseModel",
    "served-model-name": "set servedModelName",
    "max-model-len": "set engine.maxModelLen",
    "dtype": "set engine.dtype",
    "quantization": "set engine.quantization",
    "gpu-memory-utilization": "set engine.gpuMemoryUtilization",
    "max-loras": "set engine.maxLoras",
    "max-cpu-loras": "set engine.maxCpuLoras",
    "tensor-parallel-size": "set resources.gpus",
    "lora-modules": "set adapters",
    "api-key": "set apiKeysSecretRef",
    "max-lora-rank": "remove it: it follows from the adapters",
    "enable-lora": _OURS,
    "no-enable-lora": _OURS,
    "middleware": _OURS,
    "host": "remove it: the server listens on its pod's address",
    "port": "set service.port",
    "uds": "remove it: the server listens on its pod's address",
    "root-path": "remove it: the operator asks the server for its own routes at the root",
    "api-server-count": "set replicas: one process holds the adapters of a pod",
    "shutdown-timeout": "set terminationGracePeriodSeconds",
    "ssl-keyfile": "put an Ingress or Gateway with TLS before the Service",
    "ssl-certfile": "put an Ingress or Gateway with TLS before the Service",
    "config": "write its content as single arguments",
}
"""Long name without dashes → the cure."""
_SHORT = {"tensor-parallel-size": ("tp",), "quantization": ("q",), "api-server-count": ("asc",)}


def argument_rules() -> dict[str, Any]:
    """CEL rules for the list: one for each argument, so that the sentence names it."""
    return rules(
        *((_rule(name), f"extraArgs must not have --{name}: {cure}") for name, cure in OWNED_ARGUMENTS.items())
    )


def find_owned_argument(arguments: Iterable[str]) -> tuple[str, str] | None:
    """The first argument that is not the spec's to give, in any spelling that vLLM takes, and the cure."""
    for argument in arguments:
        if not argument.startswith("-"):
            continue
        given = argument.lstrip("-").partition("=")[0].replace("_", "-")
        for name, cure in OWNED_ARGUMENTS.items():
            # vLLM takes the beginning of a name for the name.
            if given and (name.startswith(given) if argument.startswith("--") else given in _SHORT.get(name, ())):
                return argument, cure
    return None


def _rule(name: str) -> str:
    spelled = name.replace("-", "[-_]")
    short = "".join(f"|-{letter}" for letter in _SHORT.get(name, ()))
    return f"self.all(arg, !arg.matches('^(--{spelled}{short})(=.*)?$'))"
