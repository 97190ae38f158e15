"""The resources as HTML pages. Pure: what is known and the time go in, text comes out.

Everything that comes from the cluster is escaped by the template engine, attributes included.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from codetune_api.common import Resource
from codetune_api.finetune import FineTune
from codetune_api.modeldeployment import ModelDeployment
from codetune_api.project import Project
from codetune_api.team import Team
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError

from codetune_cli.dashboard.charts import FRAME, HEIGHT, WIDTH, draw
from codetune_cli.dashboard.following import KINDS, Shelf
from codetune_cli.resources import find_ready
from codetune_cli.showing import say_bytes

_MODELS: Mapping[str, type[Resource]] = {
    "projects": Project,
    "finetunes": FineTune,
    "modeldeployments": ModelDeployment,
    "teams": Team,
}
_STEPS = ((86_400, "d"), (3600, "h"), (60, "m"))
TONES = {
    "Ready": "good", "Succeeded": "good", "Failed": "bad", "Running": "busy", "Scanning": "busy", "Starting": "busy",
    "Updating": "busy", "Loading": "busy",
}  # fmt: skip
"""How phases are coloured; all others are plain."""


@dataclass(frozen=True)
class Entry:
    """A resource on a page."""

    kind: str
    """Plural name."""
    namespace: str
    name: str
    resource: Resource | None
    """None where it can't be read, since it is of another version."""

    @property
    def path(self) -> str:
        """Of its own page."""
        return f"/{self.kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True)
class View:
    """What all pages are made from."""

    version: int
    """Number of the last change."""
    namespace: str
    """The one that is looked at; empty: all."""
    shelves: Mapping[str, Shelf]
    now: datetime
    entries: Mapping[str, list[Entry]] = field(init=False)
    """Of each kind, by namespace and name; without the points of their charts."""

    def __post_init__(self) -> None:
        read = {kind: [_list(kind, *found) for found in sorted(self.shelves[kind].objects.items())] for kind in KINDS}
        object.__setattr__(self, "entries", read)

    @property
    def everywhere(self) -> bool:
        """Whether all namespaces are looked at."""
        return not self.namespace

    @property
    def problems(self) -> list[str]:
        """Why something can't be followed; each once."""
        return list(dict.fromkeys(shelf.problem for shelf in self.shelves.values() if shelf.problem))

    def find(self, kind: str, namespace: str, name: str) -> Entry | None:
        """One resource, whole."""
        found = self.shelves[kind].objects.get((namespace, name)) if kind in self.shelves else None
        return None if found is None else _read(kind, (namespace, name), found)

    def finetunes_of(self, project: Entry) -> list[Entry]:
        """The runs on a Project."""
        return [
            entry
            for entry in self.entries["finetunes"]
            if isinstance(run := entry.resource, FineTune)
            and (entry.namespace, run.spec.project_ref.name) == (project.namespace, project.name)
        ]

    def servers_of(self, finetune: Entry) -> list[Entry]:
        """The ModelDeployments that have an adapter of a run."""
        return [
            entry
            for entry in self.entries["modeldeployments"]
            if isinstance(server := entry.resource, ModelDeployment)
            and entry.namespace == finetune.namespace
            and any(adapter.fine_tune == finetune.name for adapter in server.status.adapters)
        ]


def render_overview(view: View) -> str:
    """The page with everything that there is."""
    return _environment().get_template("overview.html").render(view=view, **_helpers(view.now))


def render_resource(view: View, entry: Entry) -> str:
    """The page of one resource."""
    template = f"{entry.kind}.html" if entry.resource is not None else "unreadable.html"
    more: dict[str, object] = {}
    if isinstance(entry.resource, FineTune):
        status = entry.resource.status
        best = status.best.step if status.best else None
        more = {"chart": draw(status.loss_history, best), "frame": FRAME, "width": WIDTH, "height": HEIGHT}
    return _environment().get_template(template).render(view=view, entry=entry, **more, **_helpers(view.now))


def render_missing(view: View, what: str) -> str:
    """The page for an address that there is nothing at."""
    return _environment().get_template("missing.html").render(view=view, what=what, **_helpers(view.now))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("codetune_cli.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _helpers(now: datetime) -> dict[str, object]:
    return {
        "age": partial(say_age, now=now),
        "size": say_bytes,
        "tone": lambda phase: TONES.get(phase or "", "plain"),
        "ready": find_ready,
    }


def say_age(time: str | None, now: datetime) -> str:
    """How long ago a time was, as kubectl says ages: `40s`, `12m`, `3h`, `2d`; empty for none, else as it stands."""
    if not time:
        return ""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return time  # as somebody wrote it into a status: one such resource is to spoil no page of all
    seconds = int((now - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds())
    return next((f"{seconds // step}{unit}" for step, unit in _STEPS if seconds >= step), f"{max(0, seconds)}s")


def _list(kind: str, key: tuple[str, str], found: dict[str, Any]) -> Entry:
    """Without what lists don't show: to read the points of all runs takes ten times as long as to read all else."""
    status = found.get("status")
    if isinstance(status, dict) and "lossHistory" in status:
        found = {**found, "status": {name: value for name, value in status.items() if name != "lossHistory"}}
    return _read(kind, key, found)


def _read(kind: str, key: tuple[str, str], found: dict[str, Any]) -> Entry:
    try:
        resource = _MODELS[kind].from_wire(found)
    except ValidationError:
        resource = None
    return Entry(kind, *key, resource)
