"""What may stand on the command line."""

import argparse
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

WAIT_SECONDS = 300.0
MAX_TOKENS = 128


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read a command line; one that is wrong ends the program with 2."""
    parser = _build_parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes optional arguments that stand after options for none.
    if options.command == "files" and not options.glob and rest and not rest[0].startswith("-"):
        options.glob, *rest = rest
    if options.command == "complete":
        while rest and not rest[0].startswith("-"):
            options.words.append(rest.pop(0))
        _check_completion(options, parser)
    if rest:
        parser.error(f"what is {' '.join(rest)!r}? See kubectl codetune {options.command} --help")
    return options


def _check_completion(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Sets `deployment` and `file` to what the words mean."""
    words = list(options.words)
    options.deployment = words.pop(0) if words and options.team is None else None
    options.file = Path(words.pop(0)) if words else None
    wrong = (
        (options.team is None and options.deployment is None, "name a ModelDeployment, or give --team TEAM"),
        (bool(words), f"what is {' '.join(words)!r}? One file is completed at a time"),
        (options.column is not None and options.line is None, "--column is of no line: give --line N"),
        (options.project is not None and options.team is None, "--project belongs to --team"),
        (
            options.team is not None and (options.model is not None or options.compare),
            "the gateway of a team picks the model: leave --model and --compare out, or name a ModelDeployment",
        ),
    )
    for is_wrong, message in wrong:
        if is_wrong:
            parser.error(message)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubectl codetune", description="Code in, completion model out.", parents=[_build_common()]
    )
    parser.set_defaults(namespace=None, kubeconfig=None, context=None, timeout=WAIT_SECONDS)
    parser.add_argument("--version", action="version", version=f"kubectl-codetune {_version()}")
    commands = parser.add_subparsers(dest="command", required=True)
    common = _build_common()
    for add in (_add_upload, _add_files, _add_plot, _add_logs, _add_download, _add_complete, _add_dashboard):
        add(commands, common)
    return parser


def _add_upload(commands: Any, common: argparse.ArgumentParser) -> None:
    sending = commands.add_parser(
        "upload", parents=[common], help="send local files or folders to an upload source of a Project",
        description="Sends files as git would see them (.gitignore counts) and has the Project scan them. Each upload "
        "is the whole source: what is not in it is gone. What was sent before is not sent again.",
    )  # fmt: skip
    sending.add_argument("project", metavar="PROJECT")
    sending.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a folder gives its content")
    sending.add_argument("--source", metavar="NAME", help="which upload source, where there are several")


def _add_files(commands: Any, common: argparse.ArgumentParser) -> None:
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


def _add_plot(commands: Any, common: argparse.ArgumentParser) -> None:
    plotting = commands.add_parser("plot", parents=[common], help="the loss chart of a FineTune")
    plotting.add_argument("finetune", metavar="FINETUNE")
    plotting.add_argument(
        "-f", "--follow", action="store_true", help="draw it anew until the run has ended; exit code 1 if it failed"
    )
    plotting.add_argument(
        "-o", "--output", choices=["chart", "csv", "json"], default="chart", help="json: one point a line"
    )


def _add_logs(commands: Any, common: argparse.ArgumentParser) -> None:
    logging = commands.add_parser(
        "logs", parents=[common], help="what a training run or a scan prints",
        description="Of its pod; where the pod of a FineTune is gone, what the store keeps.",
    )  # fmt: skip
    logging.add_argument("target", metavar="FINETUNE|project/NAME")
    logging.add_argument("-f", "--follow", action="store_true", help="go on until it has ended")
    logging.add_argument(
        "--pod", metavar="POD", help="a name, or the index of a node (default: the first) where there are several"
    )


def _add_download(commands: Any, common: argparse.ArgumentParser) -> None:
    fetching = commands.add_parser("download", parents=[common], help="the adapter of a FineTune, or its merged model")
    fetching.add_argument("finetune", metavar="FINETUNE")
    fetching.add_argument("--checkpoint", default="best", metavar="C", help="best (default), latest or step-N")
    fetching.add_argument(
        "--merged", action="store_true", help="the whole model, with the adapter merged into its base"
    )
    fetching.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: FINETUNE-CHECKPOINT[-merged]")


def _add_complete(commands: Any, common: argparse.ArgumentParser) -> None:
    completing = commands.add_parser(
        "complete", parents=[common], allow_abbrev=False,  # --api-key must not be taken for the name of a file
        usage="kubectl codetune complete [options] (MODELDEPLOYMENT | --team TEAM) [FILE]",
        help="what a model would write at a place in a file",
        description="Asks as an editor does: with what stands before the place, and what stands behind it. The text "
        "comes from FILE or stdin.",
    )  # fmt: skip
    completing.add_argument("words", nargs="*", metavar="MODELDEPLOYMENT [FILE]", default=[])
    completing.add_argument("--line", type=int, metavar="N", help="from 1 (default: the end of the text)")
    completing.add_argument("--column", type=int, metavar="N", help="from 1 (default: the end of the line)")
    completing.add_argument("--model", metavar="NAME", help="default: the only adapter, else the base model")
    completing.add_argument("--compare", action="store_true", help="ask the base model, then the adapter")
    completing.add_argument("--team", metavar="TEAM", help="ask the gateway of a team, with one of its API keys")
    completing.add_argument("--project", metavar="PROJECT", help="of the team (default: the team's own model)")
    completing.add_argument("--max-tokens", type=_read_count, default=MAX_TOKENS, metavar="N", help=f"({MAX_TOKENS})")
    completing.add_argument("--temperature", type=float, default=0.0, metavar="T", help="(0: the likeliest)")
    completing.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="its first line is the key; else CODETUNE_API_KEY is"
    )


def _add_dashboard(commands: Any, common: argparse.ArgumentParser) -> None:
    looking = commands.add_parser(
        "dashboard", parents=[common], help="all of it as pages in a browser on this machine",
        description="Serves pages with what stands on the resources, loss charts and evaluations among it, to this "
        "machine alone, until Ctrl-C. It reads with your own rights and changes nothing.",
    )  # fmt: skip
    looking.add_argument("-A", "--all-namespaces", action="store_true")
    looking.add_argument("--port", type=_read_port, default=0, metavar="N", help="default: any free one")
    looking.add_argument("--open", action="store_true", help="open the browser, too")


def _build_common() -> argparse.ArgumentParser:
    """Options that may stand before the command or behind it: what is not given there leaves alone what was given."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("-n", "--namespace", metavar="NS", help="default: that of the kubeconfig's context")
    common.add_argument("--kubeconfig", type=Path, metavar="FILE")
    common.add_argument("--context", metavar="NAME", help="context of the kubeconfig")
    common.add_argument(
        "--timeout", type=_read_seconds, metavar="SECONDS",
        help=f"how long to wait for the store service ({WAIT_SECONDS:.0f})",
    )  # fmt: skip
    return common


def _read_seconds(text: str) -> float:
    """Raises: argparse.ArgumentTypeError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not seconds >= 0:  # nan, too
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, such as {WAIT_SECONDS:.0f}")
    return seconds


def _read_count(text: str) -> int:
    """Raises: argparse.ArgumentTypeError."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens, such as {MAX_TOKENS}")
    return int(text)


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
