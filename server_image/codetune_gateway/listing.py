"""`/v1/models`: what the team can name. Pure."""

from typing import Any

from codetune_api.gateway import GatewayConfig, Upstream

from codetune_gateway.choosing import name_models, unknown_model


def list_models(config: GatewayConfig, created: int) -> dict[str, Any]:
    """OpenAI's list of models; `created` is a Unix time."""
    return {
        "object": "list",
        "data": [_card(config, name, upstream, created) for name, upstream in name_models(config).items()],
    }


def show_model(config: GatewayConfig, name: str, created: int) -> dict[str, Any]:
    """One entry of it. Raises: UnknownModel."""
    upstream = name_models(config).get(name)
    if upstream is None:
        raise unknown_model(config, name)
    return _card(config, name, upstream, created)


def _card(config: GatewayConfig, name: str, upstream: Upstream, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": config.team, "root": upstream.model}
