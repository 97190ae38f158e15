"""`python -m codetune_trainer scan|fetch|train|merge|purge`: the program of every Job that Codetune starts."""

import argparse
import importlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from codetune_trainer.config import termination_log
from codetune_trainer.errors import EXIT_STOPPED, MORE_MEMORY, MORE_SCAN_MEMORY, run_to_exit_code
from codetune_trainer.launching import leave_code

# Where numpy reads it: what it may be used for here is not worth threads, and with one thread a scan can fork.
_ENVIRONMENT = {"scan": {"OPENBLAS_NUM_THREADS": "1"}}
_PROGRAMS = {
    "scan": "fetch a Project's sources and write its dataset",
    "fetch": "bring a base model from the hub into the store",
    "train": "fine-tune a base model on a dataset",
    "merge": "merge an adapter into its base model",
    "purge": "remove what a deleted resource left in the store",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m codetune_trainer", description=__doc__)
    version = importlib.metadata.version("codetune-trainer")
    parser.add_argument("--version", action="version", version=f"codetune-trainer {version}")
    commands = parser.add_subparsers(dest="program", required=True, metavar="|".join(_PROGRAMS))
    for name, text in _PROGRAMS.items():
        commands.add_parser(name, help=text, description=text)
    program = parser.parse_args(arguments).program
    # Also while the libraries load: as the first process of a container it would not hear of SIGTERM otherwise.
    # `train` takes over from here to end with a checkpoint.
    signal.signal(signal.SIGTERM, _end)
    more_memory = MORE_SCAN_MEMORY if program == "scan" else MORE_MEMORY
    return leave_code(run_to_exit_code(lambda: _load(program)(), termination_log(), more_memory))


def _load(program: str) -> Callable[[], int]:
    """The program's `main`. Imported here, because each needs other libraries: only `train` waits for torch."""
    os.environ.update(_ENVIRONMENT.get(program, {}))
    run: Callable[[], int] = importlib.import_module(f"codetune_trainer.{program}").main
    return run


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(EXIT_STOPPED)  # unwinds, so that child processes end too


if __name__ == "__main__":
    sys.exit(main())
