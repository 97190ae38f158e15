"""The settings in docs/editors.md can be read, lead to the gateway that the operator makes, and name a format right."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from codetune_api.gateway import GatewayConfig
from codetune_api.infilling import FAMILIES
from codetune_api.team import Team
from codetune_gateway.app import COMPLETIONS, MODELS
from codetune_operator.resources.team.gateway import build_gateway
from codetune_operator.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[3]
CLUSTER = REPOSITORY / "examples" / "cluster"
PAGE = (REPOSITORY / "docs" / "editors.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
QWEN = next(family for family in FAMILIES if family.name.startswith("Qwen"))


def read(kind: str) -> list[Any]:
    """The blocks of a kind, parsed."""
    parse = {"yaml": yaml.safe_load, "json": json.loads}[kind]
    return [parse(text) for name, text in BLOCKS if name == kind]


def test_there_are_settings_in_each_language() -> None:
    assert {name for name, _ in BLOCKS} == {"console", "yaml", "json", "lua", "elisp"}


@pytest.mark.parametrize("block", [text for _, text in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_an_address_is_a_route_of_the_gateway_or_what_a_plugin_makes_one_of(block: str) -> None:
    paths = re.findall(r"ENDPOINT(/[\w/]*)?", block)
    assert set(paths) <= {"", "/v1", MODELS, *COMPLETIONS}


@pytest.mark.parametrize("block", [text for _, text in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_brackets_are_closed(block: str) -> None:
    assert [block.count(left) - block.count(right) for left, right in ("()", "[]", "{}")] == [0, 0, 0]


def test_continue_sends_a_suffix_to_the_completions_and_chats() -> None:
    settings = next(block for block in read("yaml") if "models" in block)
    shown = [(model["provider"], model["apiBase"], model["model"], *model["roles"]) for model in settings["models"]]
    assert shown == [
        ("llamastack", "ENDPOINT/v1", "project/PROJECT", "autocomplete"),
        ("openai", "ENDPOINT/v1", "default", "chat"),
    ]


def test_zed_asks_for_completions() -> None:
    (settings,) = read("json")
    server = settings["edit_predictions"][settings["edit_predictions"]["provider"]]
    assert (server["api_url"], server["model"]) == ("ENDPOINT/v1/completions", "project/PROJECT")


def test_formats_are_those_of_the_family_that_is_named() -> None:
    template = next(block for block in read("yaml") if "promptTemplates" in block)["promptTemplates"]["autocomplete"]
    assert template.replace("{{{prefix}}}", "P").replace("{{{suffix}}}", "S") == QWEN.layout
    fim = dict(re.findall(r"(prefix|suffix|middle) = '([^']+)'", PAGE))
    assert fim == {"prefix": QWEN.prefix, "suffix": QWEN.suffix, "middle": QWEN.middle}


@pytest.mark.parametrize("kind", ["Ingress", "HTTPRoute"])
def test_the_way_from_a_desk_leads_to_the_service_of_the_team(kind: str) -> None:
    team = yaml.safe_load((CLUSTER / "team.yaml").read_text())
    team["metadata"] |= {"namespace": "ns", "uid": "t1", "generation": 1}
    objects = build_gateway(Team.from_wire(team), GatewayConfig(team="payments"), Settings())
    service = next(each for each in objects if each["kind"] == "Service")
    if kind == "Ingress":
        rule = yaml.safe_load((CLUSTER / "team-ingress.yaml").read_text())["spec"]["rules"][0]
        path = rule["http"]["paths"][0]
        backend, prefix = path["backend"]["service"], path["path"]
        port = backend["port"]["number"]
    else:
        rule = next(block for block in read("yaml") if block.get("kind") == kind)["spec"]["rules"][0]
        backend, prefix = rule["backendRefs"][0], rule["matches"][0]["path"]["value"]
        port = backend["port"]
    assert (backend["name"], port) == (service["metadata"]["name"], service["spec"]["ports"][0]["port"])
    assert all(route.startswith(f"{prefix}/") for route in (MODELS, *COMPLETIONS))
