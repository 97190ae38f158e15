"""`kubectl codetune`: one command, and the exit code that it comes to."""

import argparse
import os
import sys
from collections.abc import Sequence

from codetune_cli.arguments import parse
from codetune_cli.browsing import Question, show_files
from codetune_cli.completing import Asked, complete
from codetune_cli.connecting import Connection, connect
from codetune_cli.dashboard.showing import Wish as DashboardWish
from codetune_cli.dashboard.showing import show_dashboard
from codetune_cli.downloading import Wish, download
from codetune_cli.errors import CliError
from codetune_cli.logs import LogWish, show_logs
from codetune_cli.merging import download_merged
from codetune_cli.plotting import Chart, plot
from codetune_cli.showing import Screen
from codetune_cli.uploading import Upload, upload

_GO_ON = frozenset({"upload", "download"})
"""Commands that are not done anew by the next try."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options, screen = parse(arguments), Screen()
    try:
        _run(options, connect(options.kubeconfig, options.context, options.namespace), screen)
    except CliError as error:
        screen.say(f"error: {error}")
        return 1
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        more = " The same command again goes on where this one was." if options.command in _GO_ON else ""
        screen.say(f"Stopped.{more}")
        return 130
    return 0


def _run(options: argparse.Namespace, connection: Connection, screen: Screen) -> None:
    match options.command:
        case "upload":
            upload(Upload(options.project, options.paths, options.source, options.timeout), connection, screen)
        case "files":
            show_files(_ask_for_files(options), connection, screen)
        case "plot":
            plot(Chart(options.finetune, options.output, options.follow), connection, screen)
        case "logs":
            show_logs(LogWish(options.target, options.pod, options.follow, options.timeout), connection, screen)
        case "complete":
            complete(_ask_for_completion(options), connection, screen)
        case "dashboard":
            show_dashboard(DashboardWish(options.all_namespaces, options.port, options.open), connection, screen)
        case _:
            fetch = download_merged if options.merged else download
            fetch(Wish(options.finetune, options.checkpoint, options.output, options.timeout), connection, screen)


def _ask_for_files(options: argparse.Namespace) -> Question:
    return Question(
        project=options.project,
        decision=options.decision,
        reason=options.reason,
        type=options.type,
        path=options.glob,
        output=options.output,
        wait_seconds=options.timeout,
    )


def _ask_for_completion(options: argparse.Namespace) -> Asked:
    return Asked(
        deployment=options.deployment,
        team=options.team,
        project=options.project,
        file=options.file,
        line=options.line,
        column=options.column,
        model=options.model,
        compare=options.compare,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        key_file=options.api_key_file,
    )


if __name__ == "__main__":
    sys.exit(main())
