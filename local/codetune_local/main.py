"""The command `codetune local`: a Kubernetes API for one person's machine, with pods as processes."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from codetune_local.daemon.backgrounding import start_in_background, stop
from codetune_local.daemon.inspecting import find_claim_path, print_status
from codetune_local.daemon.state import StateError, StateFolder

DEFAULT_STATE = Path(".codetune/local")
_WHAT_IT_IS = (
    "A development cluster for one person on one machine: pods are processes of your own account, without the "
    "isolation of containers. Do not run what you do not trust."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except StateError as error:
        print(f"codetune: {error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(prog="codetune", description=__doc__)
    areas = parser.add_subparsers(required=True, metavar="local")
    local = areas.add_parser("local", help="the local cluster", description=_WHAT_IT_IS)
    commands = local.add_subparsers(required=True, metavar="COMMAND")

    up = _add(commands, "up", "start the cluster in the background", _up)
    up.add_argument("--gpus", type=_count, default=0, metavar="N", help="how many nvidia.com/gpu the node has (0)")
    up.add_argument("--port", type=_port, default=0, help="port of the API on 127.0.0.1 (0: any; kept from then on)")
    up.add_argument("--foreground", action="store_true", help="stay, and stop everything on Ctrl-C")
    up.add_argument(
        "--job-backoff",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="before a Job's failed pod is replaced (10)",
    )
    up.add_argument(
        "--restart-backoff",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="before a crashing container restarts (10)",
    )

    down = _add(commands, "down", "stop the cluster and every pod", _down)
    down.add_argument("--delete", action="store_true", help="and delete all objects, claims and logs")
    _add(commands, "status", "what runs", _status)
    logs = _add(commands, "logs", "the daemon's own log", _logs)
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    path = _add(commands, "path", "the folder behind a PersistentVolumeClaim", _path)
    path.add_argument("claim", metavar="NAMESPACE/CLAIM")
    return parser


def _add(commands, name: str, text: str, run) -> argparse.ArgumentParser:  # type: ignore[no-untyped-def]  # argparse's own type is private
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help=f"({DEFAULT_STATE})")
    parser.set_defaults(run=run)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0")
    return seconds


def _state(options: argparse.Namespace) -> StateFolder:
    return StateFolder(options.state.expanduser().resolve())


def _up(options: argparse.Namespace) -> int:
    state = _state(options)
    if options.foreground:
        # Imported here: the other commands answer at once because they do not load the whole cluster.
        from codetune_local.daemon.serving import DaemonOptions, serve_until_stopped

        daemon = DaemonOptions(options.gpus, options.port, options.job_backoff, options.restart_backoff)
        return serve_until_stopped(state, daemon)
    pid = state.daemon_pid()
    if pid is not None:
        print(f"It runs already (process {pid}).")
    else:
        given = ["--state", str(state.path), "--gpus", str(options.gpus), "--port", str(options.port)]
        given += ["--job-backoff", str(options.job_backoff), "--restart-backoff", str(options.restart_backoff)]
        pid = start_in_background(state, given).pid
        print(f"The local cluster runs (process {pid}). {_WHAT_IT_IS}")
    print(f"\n  export KUBECONFIG={state.kubeconfig}\n  kubectl get nodes\n")
    return 0


def _down(options: argparse.Namespace) -> int:
    state = _state(options)
    if options.delete and state.path.exists() and not state.exists():
        raise StateError(f"{state.path} is not a local cluster's state folder: nothing was deleted")
    ran = stop(state)
    if options.delete and state.exists():
        state.delete()
        print(f"Stopped, and {state.path} is deleted.")
    else:
        print("Stopped; nothing runs any more." if ran else "Nothing ran.")
    return 0


def _status(options: argparse.Namespace) -> int:
    state = _state(options)
    pid = state.daemon_pid()
    if pid is None:
        print(f"Not running. Start it with `codetune local up --state {state.path}`.")
        return 1
    print(_WHAT_IT_IS)
    print_status(state, pid)
    return 0


def _logs(options: argparse.Namespace) -> int:
    state = _state(options)
    if not state.log.exists():
        raise StateError(f"there is no log in {state.path}: no cluster was started there")
    with state.log.open(errors="replace") as log:
        while True:
            for line in log:
                print(line, end="", flush=True)
            if not options.follow:
                return 0
            time.sleep(0.2)


def _path(options: argparse.Namespace) -> int:
    namespace, _, claim = options.claim.partition("/")
    if not namespace or not claim:
        raise StateError(f"{options.claim!r} is not NAMESPACE/CLAIM, such as default/codetune-artifacts")
    print(find_claim_path(_state(options), namespace, claim))
    return 0


if __name__ == "__main__":
    sys.exit(main())
