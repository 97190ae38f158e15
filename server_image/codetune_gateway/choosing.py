"""Which of the team's models a request is for. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from codetune_api.gateway import DEFAULT_MODEL, PROJECT_HEADER, PROJECT_PREFIX, GatewayConfig, Upstream

from codetune_gateway.errors import BadRequest, UnknownModel

_SHOWN = 100
"""Most characters of a name that a message repeats."""


@dataclass(frozen=True)
class Choice:
    """What a request is answered by."""

    upstream: Upstream
    project: str = ""
    """The Project that the request names; empty: none."""


def choose(config: GatewayConfig, project: str, model: object) -> Choice:
    """The model that a request is for.

    Args:
        config: What the team has.
        project: The header that names a project, which decides; empty: there is none.
        model: `model` of the request.

    Raises:
        BadRequest: `model` is no string, or there is none and the team has no default.
        UnknownModel: The team has no such project or model.
    """
    if model is not None and not isinstance(model, str):
        raise BadRequest(f"`model` must be a string. {_tell_models(config)}", "model")
    if project:
        return _of_project(config, project, PROJECT_HEADER)
    if not model or model == DEFAULT_MODEL:
        return Choice(_default(config))
    if model.startswith(PROJECT_PREFIX):
        return _of_project(config, model.removeprefix(PROJECT_PREFIX), "model")
    return Choice(_by_name(config, model))


def name_models(config: GatewayConfig) -> dict[str, Upstream]:
    """Every model of the team by the name that requests give it: the default first, then projects by name."""
    default = {DEFAULT_MODEL: config.default} if config.default else {}
    return default | {f"{PROJECT_PREFIX}{name}": upstream for name, upstream in sorted(config.projects.items())}


def unknown_model(config: GatewayConfig, name: str) -> UnknownModel:
    """The refusal of a name that the team has no model by."""
    message = f"The team {config.team} has no model {_shorten(name)}. {_tell_models(config)}"
    return UnknownModel(message, "model")


def _default(config: GatewayConfig) -> Upstream:
    if config.default is None:
        message = f"The team {config.team} has no default model: name a project. {_tell_models(config)}"
        raise BadRequest(message, "model")
    return config.default


def _of_project(config: GatewayConfig, name: str, where: str) -> Choice:
    try:
        return Choice(config.projects[name], name)
    except KeyError:
        message = f"The team {config.team} has no project {_shorten(name)}, which {where} names. {_tell_models(config)}"
        raise UnknownModel(message, "model") from None


def _by_name(config: GatewayConfig, model: str) -> Upstream:
    """Whoever knows a model by the name that its server gives it, such as an adapter's, may say that."""
    for upstream in name_models(config).values():
        if upstream.model == model:
            return upstream
    raise unknown_model(config, model)


def _tell_models(config: GatewayConfig) -> str:
    names = ", ".join(_list_names(config))
    return f"Its models are {names}." if names else "It has none yet: give its Team a completionModel."


def _list_names(config: GatewayConfig) -> Iterator[str]:
    return (f"`{name}`" for name in name_models(config))


def _shorten(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…")
