"""`/v1/models`: vLLM's list, with the stable names in the place of the versions'. Pure."""

import json
from typing import Any

from codetune_server.replies import unknown_model
from codetune_server.versions import VersionTable

MODELS = "/v1/models"


def list_models(body: bytes, versions: VersionTable) -> bytes:
    """vLLM's answer with one entry a stable name; versions on their way in or out are left out."""
    listed = json.loads(body)
    return _dump({**listed, "data": [card for card in map(_stable(versions), listed["data"]) if card]})


def pick_model(body: bytes, versions: VersionTable, name: str) -> tuple[int, bytes]:
    """Status and body for one model of vLLM's answer: OpenAI's `GET /v1/models/{name}`, which vLLM lacks."""
    for card in json.loads(list_models(body, versions))["data"]:
        if card["id"] == name:
            return 200, _dump(card)
    missing = unknown_model(name)
    return missing.status_code, bytes(missing.body)


def _stable(versions: VersionTable) -> Any:
    def rename(card: dict[str, Any]) -> dict[str, Any] | None:
        version = versions.loaded(card["id"])
        if version is None:
            return card
        return {**card, "id": version.name} if versions.current(version.name) is version else None

    return rename


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
