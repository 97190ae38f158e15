"""`kubectl codetune files PROJECT [PATH-GLOB]`: what a scan did with each file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from codetune_api.contracts import ReportRow
from codetune_api.project import ProjectStatus
from pydantic import ValidationError

from codetune_cli.connecting import Connection
from codetune_cli.errors import CliError
from codetune_cli.reaching import reach_store
from codetune_cli.resources import find_project, tell_ready
from codetune_cli.showing import Screen, printable

_ACCEPTED = ("HeldOut", "Included")
"""Reasons of accepted files."""
_HEADER = f"{'DECISION':<9} {'REASON':<16} {'TYPE':<16} {'LINES':>7} {'BYTES':>9}  PATH"


@dataclass(frozen=True)
class Question:
    """What was asked for."""

    project: str
    decision: str
    reason: str
    type: str
    path: str
    output: Literal["table", "json"]
    wait_seconds: float


def show_files(asked: Question, connection: Connection, screen: Screen) -> None:
    """Print the rows. Raises: CliError."""
    project = find_project(connection, asked.project)
    revision = project.status.revision
    if revision is None:
        why = tell_ready(project.status.conditions)
        raise CliError(f"Project {asked.project!r} has no dataset yet. {why}".rstrip())
    store = reach_store(connection, project, asked.wait_seconds, screen)
    filters = {"decision": asked.decision, "reason": asked.reason, "type": asked.type, "path": asked.path}
    query = {"revision": revision, **{key: value for key, value in filters.items() if value}}
    lines = store.lines(f"/v1/projects/{asked.project}/report", query)
    shown = 0
    if asked.output == "table":
        screen.result(_HEADER)
    for line in lines:
        shown += 1
        screen.result(_render(line, asked.output))
    if not shown:
        screen.say(" ".join(["No file matches.", *_tell_choices(asked, project.status)]))


def _tell_choices(asked: Question, status: ProjectStatus) -> Iterator[str]:
    """What may be asked for, where a reason or a type is none of the scan's: it may be misspelt."""
    reasons = [*(entry.reason for entry in status.rejections), *_ACCEPTED]
    types = [entry.type for entry in status.file_types]
    for option, wanted, known in (("--reason", asked.reason, reasons), ("--type", asked.type, types)):
        if wanted and wanted.lower() not in (name.lower() for name in known):
            yield f"{option} can be: {', '.join(known)}."


def _render(line: bytes, output: str) -> str:
    try:
        row = ReportRow.model_validate_json(line)
    except ValidationError as error:
        raise CliError("The report was written by another version of Codetune than this command: update it.") from error
    if output == "json":
        return json.dumps(row.to_wire())
    detail = f"  ({printable(row.detail)})" if row.detail else ""
    cells = f"{row.decision:<9} {row.reason or '-':<16} {row.type:<16} {row.lines:>7} {row.bytes:>9}"
    return printable(f"{cells}  {row.path}").replace("\n", "\\n") + detail.replace("\n", "\\n")
