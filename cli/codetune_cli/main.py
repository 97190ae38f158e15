"""The command line of `kubectl codetune`."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from codetune_cli.browsing import Question, show_files
from codetune_cli.connecting import Connection, connect
from codetune_cli.dashboard.showing import Wish as DashboardWish
from codetune_cli.dashboard.showing import show_dashboard
from codetune_cli.downloading import Wish, download
from codetune_cli.errors import CliError
from codetune_cli.merging import download_merged
from codetune_cli.showing import Screen
from codetune_cli.uploading import Upload, upload

_WAIT_SECONDS = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options, screen = _parse(arguments), Screen()
    try:
        _run(options, connect(options.kubeconfig, options.context, options.namespace), screen)
    except CliError as error:
        screen.say(f"error: {error}")
        return 1
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        screen.say("Stopped. The same command again goes on where this one was.")
        return 130
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command == "files" and not options.glob and not rest[0].startswith("-"):
        # argparse takes an optional argument that stands after options for none.
        options.glob, *rest = rest
    if rest:
        parser.error(f"what is {' '.join(rest)!r}? See kubectl codetune {options.command} --help")
    return options


def _run(options: argparse.Namespace, connection: Connection, screen: Screen) -> None:
    if options.command == "upload":
        upload(Upload(options.project, options.paths, options.source, options.timeout), connection, screen)
    elif options.command == "files":
        asked = Question(
            project=options.project,
            decision=options.decision,
            reason=options.reason,
            type=options.type,
            path=options.glob,
            output=options.output,
            wait_seconds=options.timeout,
        )
        show_files(asked, connection, screen)
    elif options.command == "dashboard":
        show_dashboard(DashboardWish(options.all_namespaces, options.port, options.open), connection, screen)
    else:
        fetch = download_merged if options.merged else download
        fetch(Wish(options.finetune, options.checkpoint, options.output, options.timeout), connection, screen)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubectl codetune", description="Code in, completion model out.", parents=[_build_common()]
    )
    parser.set_defaults(namespace=None, kubeconfig=None, context=None, timeout=_WAIT_SECONDS)
    parser.add_argument("--version", action="version", version=f"kubectl-codetune {_version()}")
    commands = parser.add_subparsers(dest="command", required=True)
    common = _build_common()
    sending = commands.add_parser(
        "upload", parents=[common], help="send local files or folders to an upload source of a Project",
        description="Sends files as git would see them (.gitignore counts) and has the Project scan them. Each upload "
        "is the whole source: what is not in it is gone. What was sent before is not sent again.",
    )  # fmt: skip
    sending.add_argument("project", metavar="PROJECT")
    sending.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a folder gives its content")
    sending.add_argument("--source", metavar="NAME", help="which upload source, where there are several")
    browsing = commands.add_parser("files", parents=[common], help="what the last scan did with each file")
    browsing.add_argument("project", metavar="PROJECT")
    browsing.add_argument(
        "glob", nargs="?", default="", metavar="PATH-GLOB", help="as in .gitignore, e.g. 'src/**/*.py'"
    )
    which = browsing.add_mutually_exclusive_group()
    for option, decision, text in (
        ("--rejected", "rejected", "only files that were left out"),
        ("--accepted", "accepted", "only files that are in the dataset"),
        ("--held-out", "holdout", "only files that are evaluated on and never trained on"),
    ):
        which.add_argument(option, action="store_const", const=decision, default="", dest="decision", help=text)
    browsing.add_argument("--reason", default="", metavar="R", help="e.g. Generated (docs/scan.md lists them)")
    browsing.add_argument("--type", default="", metavar="T", help="e.g. Python")
    browsing.add_argument("-o", "--output", choices=["table", "json"], default="table", help="json: one object a line")
    fetching = commands.add_parser("download", parents=[common], help="the adapter of a FineTune, or its merged model")
    fetching.add_argument("finetune", metavar="FINETUNE")
    fetching.add_argument("--checkpoint", default="best", metavar="C", help="best (default), latest or step-N")
    fetching.add_argument(
        "--merged", action="store_true", help="the whole model, with the adapter merged into its base"
    )
    fetching.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: FINETUNE-CHECKPOINT[-merged]")
    looking = commands.add_parser(
        "dashboard", parents=[common], help="all of it as pages in a browser on this machine",
        description="Serves pages with what stands on the resources, loss charts and evaluations among it, to this "
        "machine alone, until Ctrl-C. It reads with your own rights and changes nothing.",
    )  # fmt: skip
    looking.add_argument("-A", "--all-namespaces", action="store_true")
    looking.add_argument("--port", type=_read_port, default=0, metavar="N", help="default: any free one")
    looking.add_argument("--open", action="store_true", help="open the browser, too")
    return parser


def _build_common() -> argparse.ArgumentParser:
    """Options that may stand before the command or behind it: what is not given there leaves alone what was given."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("-n", "--namespace", metavar="NS", help="default: that of the kubeconfig's context")
    common.add_argument("--kubeconfig", type=Path, metavar="FILE")
    common.add_argument("--context", metavar="NAME", help="context of the kubeconfig")
    common.add_argument(
        "--timeout", type=_read_seconds, metavar="SECONDS",
        help=f"how long to wait for the store service ({_WAIT_SECONDS:.0f})",
    )  # fmt: skip
    return common


def _read_seconds(text: str) -> float:
    """Raises: argparse.ArgumentTypeError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not seconds >= 0:  # nan, too
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, such as {_WAIT_SECONDS:.0f}")
    return seconds


def _read_port(text: str) -> int:
    """Raises: argparse.ArgumentTypeError."""
    if not text.isdecimal() or int(text) >= 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number below 65536, or 0 for any free one")
    return int(text)


def _version() -> str:
    try:
        return version("codetune-cli")
    except PackageNotFoundError:
        return "of a checkout"


if __name__ == "__main__":
    sys.exit(main())
