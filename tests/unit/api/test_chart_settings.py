"""The operator's settings in the chart: its schema knows each of them and no other, and its page tells each."""

import json
from collections.abc import Iterator
from types import NoneType
from typing import Any, get_args

import pytest
from chart import CHART, render_chart
from codetune_operator.settings import Settings, parse_settings
from helm_python import HelmError
from pydantic import BaseModel

OF_THE_CHART = {"namespace", "namespaces"}
"""Those that follow from other values."""
WHOLE: dict[str, Any] = {
    "images": {"trainer": "registry.example.com/trainer:1", "pullPolicy": "Always", "pullSecrets": ["registry"]},
    "store": {"bucket": "s3://codetune/artifacts", "size": 100, "storageClassName": "fast"},
    "s3": {"endpoint": "https://minio:9000", "credentialsSecretName": "codetune-s3"},
    "hub": {"endpoint": "https://hub.example.com"},
    "networkPolicy": {"egressPorts": [9000]},
    "monitoringNamespaces": ["monitoring"],
    "endpoint": "ClusterIP",
    "fileRoot": "/files",
    "scanResources": {"gpus": 0, "cpu": 2, "memory": "4Gi"},
    "logFormat": "json",
}


def tell_settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The path of each setting."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        (kind, *_) = [each for each in get_args(field.annotation) or (field.annotation,) if each is not NoneType]
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from tell_settings(kind, f"{path}.")
        elif path not in OF_THE_CHART:
            yield path


def tell_properties(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The path of each value that a JSON Schema knows."""
    assert schema["additionalProperties"] is False, prefix
    for name, found in schema["properties"].items():
        if "properties" in found:
            yield from tell_properties(found, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_schema_has_the_settings_that_the_operator_has() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["settings"]
    assert sorted(tell_properties(schema)) == sorted(tell_settings(Settings))


@pytest.mark.parametrize("path", sorted(tell_settings(Settings)))
def test_the_page_tells_a_setting(path: str) -> None:
    text = (CHART / "README.md").read_text()
    section = text[text.index("## Settings") : text.index("## Removing it")]
    group, _, name = path.rpartition(".")
    assert f"`{path}`" in section or (group == "scanResources" and f"`{name}`" in section)


def test_settings_that_the_schema_lets_through_are_the_operators() -> None:
    (found,) = [found for found in render_chart({"settings": WHOLE}) if found["kind"] == "ConfigMap"]
    settings = parse_settings(found["data"]["settings.yaml"])
    assert settings.store.uri == "s3://codetune/artifacts"
    assert (settings.scan_resources.cpu, settings.store.size) == ("2", "100")


WRONG: dict[str, dict[str, Any]] = {
    "a group that is misspelt": {"stor": {}},
    "a setting that is misspelt": {"store": {"sized": "1Gi"}},
    "a resource that is misspelt": {"scanResources": {"cpus": 4}},
    "a word that is none of those": {"store": {"accessMode": "RWX"}},
    "an endpoint without a scheme": {"hub": {"endpoint": "hub.example.com"}},
}


@pytest.mark.parametrize("settings", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_setting_is_refused_before_anything_is_installed(settings: dict[str, Any]) -> None:
    with pytest.raises(HelmError, match="settings"):
        render_chart({"settings": settings})
