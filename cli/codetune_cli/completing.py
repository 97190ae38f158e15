"""`kubectl codetune complete`: what a model would write at a place in a file, as an editor asks for it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codetune_api.gateway import DEFAULT_MODEL, GATEWAY_SUFFIX, PROJECT_PREFIX
from codetune_api.modeldeployment import ModelDeployment
from codetune_api.team import Team

from codetune_cli.asking import Server
from codetune_cli.connecting import Connection
from codetune_cli.cutting import cut
from codetune_cli.errors import CliError
from codetune_cli.keys import HOW, read_key
from codetune_cli.resources import find_modeldeployment, find_team, tell_ready
from codetune_cli.showing import Screen


@dataclass(frozen=True)
class Asked:
    """What was asked for."""

    deployment: str | None
    """None: the gateway of `team` is asked."""
    team: str | None
    project: str | None
    file: Path | None
    """None: the text comes from stdin."""
    line: int | None
    column: int | None
    model: str | None
    compare: bool
    max_tokens: int
    temperature: float
    key_file: Path | None


def complete(asked: Asked, connection: Connection, screen: Screen) -> None:
    """Print a completion as it comes. Raises: CliError."""
    if asked.deployment is not None:
        server, models = _choose_server(asked, asked.deployment, connection)
    else:
        server, models = _choose_gateway(asked, asked.team or "", connection)
    if asked.file is None and sys.stdin.isatty():
        screen.say("The text comes from here; Ctrl-D ends it.")
    place = cut(_read_text(asked.file), asked.line, asked.column)
    question = {"prompt": place.before, "max_tokens": asked.max_tokens, "temperature": asked.temperature}
    if place.behind:
        question["suffix"] = place.behind
    if asked.model is None and not asked.compare:
        screen.say(f"Model: {models[0]}")
    for model in models:
        if asked.compare:
            screen.result(f"==> {model} <==")
        with screen.writing(ends_line=asked.compare) as write:
            for piece in server.complete({"model": model, **question}):
                write(piece)


def choose_models(deployment: ModelDeployment, wanted: str | None, *, compare: bool) -> Sequence[str]:
    """Names of the models to ask: one, or the base model and an adapter. Raises: CliError that names what there is."""
    name, status = deployment.metadata.name, deployment.status
    if not status.models:
        why = tell_ready(status.conditions)
        raise CliError(f"ModelDeployment {name!r} answers nobody now. {why}".rstrip())
    base, *adapters = status.models
    there = f"There are: {', '.join(status.models)}."
    if wanted is not None and wanted not in status.models:
        state = next((found for found in status.adapters if found.name == wanted), None)
        why = f" That adapter is {state.phase}: {state.message}" if state is not None else ""
        raise CliError(f"ModelDeployment {name!r} serves no model {wanted!r} now.{why} {there}")
    chosen = wanted or (adapters[0] if len(adapters) == 1 else base)
    if not compare:
        return (chosen,)
    if chosen == base:
        raise CliError(f"--compare asks the base model and an adapter: name one with --model. {there}")
    return (base, chosen)


def choose_project(team: Team, project: str | None) -> str:
    """The model's name for a team's gateway. Raises: CliError that names the projects there are."""
    name, status = team.metadata.name, team.status
    if not status.ready_replicas:
        why = tell_ready(status.conditions)
        raise CliError(f"The gateway of Team {name!r} answers nobody now. {why}".rstrip())
    known = [entry.project_ref.name for entry in team.spec.projects]
    there = f"Its projects are: {', '.join(known)}." if known else "It has no projects: leave --project out."
    if project is not None and project not in known:
        raise CliError(f"Team {name!r} has no project {project!r}. {there}")
    if project is None and team.spec.completion_model is None:
        raise CliError(f"Team {name!r} has no model for all projects: name one with --project. {there}")
    found = next((model for model in status.models if model.project == (project or "")), None)
    if found is not None and not found.ready:
        raise CliError(f"The model that Team {name!r} completes with is not served now: {found.message}")
    return DEFAULT_MODEL if project is None else f"{PROJECT_PREFIX}{project}"


def _choose_server(asked: Asked, name: str, connection: Connection) -> tuple[Server, Sequence[str]]:
    deployment = find_modeldeployment(connection, name)
    models = choose_models(deployment, asked.model, compare=asked.compare)
    who, key = f"ModelDeployment {name!r}", None
    if deployment.spec.api_keys_secret_ref is not None:  # one that nobody asks for stays here
        key = _read_key(asked.key_file, who)
    return Server(who, name, deployment.spec.service.port, connection, key), models


def _choose_gateway(asked: Asked, name: str, connection: Connection) -> tuple[Server, Sequence[str]]:
    team = find_team(connection, name)
    model = choose_project(team, asked.project)
    who = f"The gateway of Team {name!r}"
    key = _read_key(asked.key_file, who)
    return Server(who, f"{name}{GATEWAY_SUFFIX}", team.spec.service.port, connection, key), (model,)


def _read_key(file: Path | None, who: str) -> str:
    key = read_key(file)
    if key is None:
        raise CliError(f"{who} asks for an API key. {HOW}")
    return key


def _read_text(file: Path | None) -> str:
    """The file as it is, with the line breaks that it has; a byte order mark is none of its text. Raises: CliError."""
    try:
        content = sys.stdin.buffer.read() if file is None else file.read_bytes()
        return content.decode().removeprefix("\ufeff")
    except OSError as error:
        raise CliError(f"{file} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        where = "What stands on stdin" if file is None else str(file)
        raise CliError(f"{where} is no text in UTF-8, from byte {error.start} on.") from error
