"""Who uses the datasets of a Project: which of them stay in the store, and what holds up the Project's deletion. Pure.

A run pins the revision that is in its Project's status, and a scan is told at its start to keep that revision and all
that are pinned, and to remove the others at its end. Runs that have pinned nothing yet wait while a scan is under way,
so nobody can come to pin what a scan is about to remove.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from codetune_api.project import Project

from codetune_operator.resources.project.scan import rules_digest

Obj = dict[str, Any]

_FINISHED = frozenset({"Succeeded", "Failed"})
_SHOWN = 5


@dataclass(frozen=True)
class DatasetUse:
    """A FineTune that was made on a dataset of the Project."""

    finetune: str
    revision: str
    holds: bool
    """It is not over, so it still reads the dataset."""


def read_uses(project: str, finetunes: Iterable[Obj]) -> tuple[DatasetUse, ...]:
    """The uses of a Project's datasets, off the FineTunes of its namespace as JSON; by name."""
    uses = []
    for finetune in finetunes:
        spec, status = finetune.get("spec") or {}, finetune.get("status") or {}
        revision = (status.get("dataset") or {}).get("revision")
        if not revision or (spec.get("projectRef") or {}).get("name") != project:
            continue
        over = status.get("phase") in _FINISHED or bool(finetune["metadata"].get("deletionTimestamp"))
        uses.append(DatasetUse(finetune["metadata"]["name"], revision, holds=not over))
    return tuple(sorted(uses, key=lambda use: use.finetune))


def kept_revisions(project: Project, uses: Iterable[DatasetUse]) -> list[str]:
    """The revisions that a scan must leave: what new runs start on, and what every FineTune that exists was made on."""
    current = {project.status.revision} if project.status.revision is not None else set()
    return sorted(current | {use.revision for use in uses})


def is_current(project: Project) -> bool:
    """Whether there is a dataset that was made by the sources and rules that spec has now."""
    return project.status.revision is not None and project.status.rules_digest == rules_digest(project)


def say_holders(uses: Iterable[DatasetUse]) -> str:
    """What the deletion of a Project waits for, and what to do about it; empty when it waits for nothing."""
    names = [use.finetune for use in uses if use.holds]
    if not names:
        return ""
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return (
        f"Its datasets are kept for FineTunes that are not over: {shown}. The Project goes by itself when they are "
        "done; to let it go now, delete them: kubectl delete finetune " + " ".join(names[:_SHOWN])
    )
