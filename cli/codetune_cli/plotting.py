"""`kubectl codetune plot FINETUNE`: the loss chart in the terminal."""

import shutil
from dataclasses import dataclass
from typing import Literal

from codetune_api.finetune import FineTune

from codetune_cli.charting import draw_chart, list_points
from codetune_cli.connecting import Connection
from codetune_cli.errors import CliError
from codetune_cli.resources import find_finetune, tell_ready
from codetune_cli.showing import Screen, printable
from codetune_cli.watching import watch_finetune

_WIDTH, _HEIGHT = 80, 20
"""Where there is no terminal."""
_MAX_WIDTH, _MAX_HEIGHT = 120, 30
_MIN_HEIGHT = 8
_BELOW = 4
"""Lines for what stands below the chart and for the prompt."""
_ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class Chart:
    """What was asked for."""

    finetune: str
    output: Literal["chart", "csv", "json"]
    follow: bool


def plot(asked: Chart, connection: Connection, screen: Screen) -> None:
    """Show the losses of a run; with `follow` until it has ended.

    Raises:
        CliError: There is nothing to show, or a run that was followed has failed.
    """
    finetune = _follow(asked, connection, screen) if asked.follow else find_finetune(connection, asked.finetune)
    if not finetune.status.loss_history:
        raise CliError(_tell_nothing(finetune))
    # On a terminal, what was followed to its end stands there already.
    if not (asked.follow and _is_redrawn(asked, screen)):
        screen.result(_render(asked, finetune, screen))
    if asked.follow and finetune.status.phase == "Failed":
        failure = finetune.status.failure
        why = f"{failure.message} {failure.hint}".rstrip() if failure else tell_ready(finetune.status.conditions)
        raise CliError(f"FineTune {asked.finetune!r} has failed: {why}")


def _follow(asked: Chart, connection: Connection, screen: Screen) -> FineTune:
    """The run when it has ended. What is no chart on a terminal is shown only then: old points change, too."""
    told = ""
    for finetune in watch_finetune(connection, asked.finetune, screen.say):
        has_ended = finetune.status.phase in _ENDED
        if finetune.status.loss_history and _is_redrawn(asked, screen):
            screen.redraw(_render(asked, finetune, screen))
        elif not has_ended and not finetune.status.loss_history and (state := _tell_nothing(finetune)) != told:
            screen.say(state)
            told = state
        if has_ended:
            return finetune
    raise AssertionError("a watch has no end of its own")


def _is_redrawn(asked: Chart, screen: Screen) -> bool:
    return asked.output == "chart" and screen.is_terminal


def _render(asked: Chart, finetune: FineTune, screen: Screen) -> str:
    if asked.output != "chart":
        return list_points(finetune.status.loss_history, asked.output)
    width, height = _WIDTH, _HEIGHT
    if screen.is_terminal:
        columns, lines = shutil.get_terminal_size((_WIDTH, _HEIGHT + _BELOW))
        width, height = min(columns, _MAX_WIDTH), max(min(lines - _BELOW, _MAX_HEIGHT), _MIN_HEIGHT)
    return printable(draw_chart(finetune, width, height))


def _tell_nothing(finetune: FineTune) -> str:
    why = tell_ready(finetune.status.conditions)
    return f"FineTune {finetune.metadata.name!r} has no losses to plot. {why}".rstrip()
