"""The CRDs: structural, in step with the models, and each CEL rule with the sentence that a user reads."""

import re
from collections.abc import Iterator
from typing import Any

import celpy
import pytest
import yaml
from celpy import json_to_cel
from codetune_api import crd, reference
from codetune_api.crd import KINDS, Kind, build_schema
from codetune_api.model import FORM, INT_OR_STRING

SCHEMAS = {kind.model.__name__: build_schema(kind.model) for kind in KINDS}
DEFINITIONS = {kind.model.__name__: crd.build_definition(kind) for kind in KINDS}


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for key, found in (schema.get("properties") or {}).items():
        yield from walk(found, f"{path}.{key}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}[]")


def test_the_files_are_those_of_the_models() -> None:
    differing = [path.name for path, text in crd.files().items() if path.read_text() != text]
    assert not differing, "run `make generate`"


def test_the_reference_page_is_that_of_the_models() -> None:
    assert reference.PATH.read_text() == reference.render(), "run `make generate`"


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_structural(name: str) -> None:
    for path, schema in walk(SCHEMAS[name]):
        assert not {"$ref", "anyOf", "oneOf", "allOf", "title", "const"} & schema.keys(), path
        assert ("type" in schema) != (INT_OR_STRING in schema), path
        assert not ({FORM, "pattern"} <= schema.keys()), path
        assert not ({"properties", "additionalProperties"} <= schema.keys()), path
        assert schema.get("default", 0) is not None, path
        if schema.get("x-kubernetes-list-type") == "map":
            for key in schema["x-kubernetes-list-map-keys"]:
                assert key in schema["items"]["required"], path


@pytest.mark.parametrize("name", SCHEMAS)
def test_kubectl_explain_has_something_to_say_of_what_a_user_writes(name: str) -> None:
    for path, schema in walk(SCHEMAS[name]["properties"]["spec"]):
        as_in_a_pod = re.search(r"^\.scheduling\.|^\.env\[\]|^\.adapterSelector\.match", path)
        tells_itself = not path or path.endswith(("[]", "Ref.name", "Secrets[].name"))
        assert "description" in schema or as_in_a_pod or tells_itself, path


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_default_says_no_more_than_the_defaults_of_its_fields_leave_open_and_has_no_null(name: str) -> None:
    for path, schema in walk(SCHEMAS[name]):
        for key, value in (schema.get("default") or {}).items() if schema.get("type") == "object" else ():
            assert value is not None, f"{path}.{key}"
            assert value != schema["properties"][key].get("default"), f"{path}.{key}"


@pytest.mark.parametrize(
    ("expected", "default"),
    [
        pytest.param({}, {"gpus": 1, "cpu": None}, id="what-the-fields-say-anyway"),
        pytest.param({"gpus": 2}, {"gpus": 2, "cpu": None}, id="what-is-other"),
        pytest.param({"cpu": "4"}, {"gpus": 1, "cpu": "4"}, id="what-has-no-default"),
    ],
)
def test_a_default_of_an_object_is_shortened(expected: dict[str, Any], default: dict[str, Any]) -> None:
    fields = {"gpus": {"type": "integer", "default": 1}, "cpu": {"type": "string"}}
    schema = {"type": "object", "properties": fields, "default": default}
    assert crd._structural(schema, {})["default"] == expected


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_a_user_writes_is_bounded_so_that_rules_stay_cheap(name: str) -> None:
    for path, schema in walk(SCHEMAS[name]["properties"]["spec"]):
        if schema.get("type") == "array":
            assert "maxItems" in schema, path
        if schema.get("type", "string") == "string" and "enum" not in schema:
            assert "maxLength" in schema or "pattern" in schema, path


@pytest.mark.parametrize("name", SCHEMAS)
def test_patterns_are_understood(name: str) -> None:
    patterns = [schema["pattern"] for _, schema in walk(SCHEMAS[name]) if "pattern" in schema]
    assert patterns
    for pattern in patterns:
        re.compile(pattern)
        assert "(?" not in pattern, "RE2 has no lookaround"
    for _, schema in walk(SCHEMAS[name]):
        for rule in schema.get("x-kubernetes-validations", []):
            assert not re.search(r"\(\?[=!<]", rule["rule"]), "RE2 has no lookaround"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_a_kind_has_its_names_and_subresources(kind: Kind) -> None:
    spec = DEFINITIONS[kind.model.__name__]["spec"]
    assert spec["names"]["categories"] == ["codetune"]
    assert spec["names"]["shortNames"] == [kind.short_name]
    version = spec["versions"][0]
    assert version["subresources"]["status"] == {}
    assert ("scale" in version["subresources"]) is (kind.plural == "modeldeployments")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_an_object_that_nobody_has_looked_at_is_in_progress_to_kstatus(kind: Kind) -> None:
    """Without a status it would be Current, and whoever waits for it would go on at once."""
    assert SCHEMAS[kind.model.__name__]["properties"]["status"]["default"] == {"observedGeneration": -1}


SOURCE = {"name": "a", "git": {"url": "https://example.com/a.git"}}
FINETUNE = {"projectRef": {"name": "a"}, "baseModel": "hf://a/b", "lora": {}}
COMPLETES = {"completionModel": {"deploymentRef": {"name": "coder"}}}
SHOP = {"projectRef": {"name": "shop"}}


@pytest.mark.parametrize(
    ("sentence", "kind", "path", "new", "old"),
    [
        pytest.param(None, "Project", ".spec.sources[]", SOURCE, None, id="one-source"),
        pytest.param("exactly one of", "Project", ".spec.sources[]", {**SOURCE, "upload": {}}, None, id="two-sources"),
        pytest.param("exactly one of", "Project", ".spec.sources[]", {"name": "a"}, None, id="no-source"),
        pytest.param(
            "path inside the volume",
            "Project",
            ".spec.sources[]",
            {"name": "a", "volume": {"claimName": "c", "path": "../x"}},
            None,
            id="path-out-of-the-volume",
        ),
        *(
            pytest.param(None, "Project", ".spec.sources[].git.url", url, None, id=url)
            for url in ("https://h/a@b.git", "https://h:8443/a?x=u:p@h", "ssh://git@h:22/a", "git@h:a", "file:///a")
        ),
        *(
            pytest.param("must not hold credentials", "Project", ".spec.sources[].git.url", url, None, id=url)
            for url in ("https://u:p@h/a", "http://token@h/a", "ssh://git:p@h/a")
        ),
        pytest.param("write https://HOST/PATH", "Project", ".spec.sources[].git.url", "git://h/a", None, id="git-url"),
        pytest.param("write https", "Project", ".spec.sources[].git.url", "https://h/a b", None, id="url-with-blank"),
        pytest.param(
            "must not hold credentials", "Project", ".spec.sources[].archive.url", "https://u:p@h/a", None, id="archive"
        ),
        pytest.param("hf://ORG/NAME", "FineTune", ".spec.baseModel", "Qwen/Qwen2.5", None, id="model-without-scheme"),
        pytest.param(
            "64 hex digits", "Project", ".spec.sources[].archive.sha256", "sha256:" + "a" * 64, None, id="sha256"
        ),
        pytest.param(None, "Project", ".spec.schedule", "*/15 8-18 1,15 jan-Jun 1-5/2", None, id="schedule"),
        pytest.param(None, "Project", ".spec.schedule", "0  3 * * sun", None, id="schedule-with-spaces"),
        pytest.param("5 fields", "Project", ".spec.schedule", "0 3 * *", None, id="schedule-too-short"),
        pytest.param("5 fields", "Project", ".spec.schedule", "0 0 3 * * *", None, id="schedule-with-seconds"),
        pytest.param("5 fields", "Project", ".spec.schedule", "@daily", None, id="schedule-macro"),
        pytest.param("out of range", "Project", ".spec.schedule", "60 3 * * *", None, id="minute"),
        pytest.param("out of range", "Project", ".spec.schedule", "0 24 * * *", None, id="hour"),
        pytest.param("out of range", "Project", ".spec.schedule", "0 3 0 * *", None, id="day"),
        pytest.param("out of range", "Project", ".spec.schedule", "0 3 * 13 *", None, id="month"),
        pytest.param("out of range", "Project", ".spec.schedule", "0 3 * * 8", None, id="weekday"),
        pytest.param("out of range", "Project", ".spec.schedule", "*/0 3 * * *", None, id="step"),
        pytest.param("out of range", "Project", ".spec.schedule", "0 3 L * *", None, id="last-day"),
        pytest.param(None, "Project", ".spec", {"sources": [SOURCE, {**SOURCE, "use": "HoldOut"}]}, None, id="uses"),
        pytest.param(
            "nothing to train on", "Project", ".spec", {"sources": [{**SOURCE, "use": "HoldOut"}]}, None, id="all-held"
        ),
        pytest.param("another base model", "FineTune", ".spec.baseModel", "hf://a/b", "hf://a/c", id="other-base"),
        pytest.param("for another project", "FineTune", ".spec.projectRef", {"name": "b"}, {"name": "a"}, id="project"),
        pytest.param("one set of parameters", "FineTune", ".spec.lora", {"rank": 8}, {}, id="other-rank"),
        pytest.param(
            "modelSecretRef can't",
            "FineTune",
            ".spec",
            {**FINETUNE, "modelSecretRef": {"name": "s"}},
            FINETUNE,
            id="secret",
        ),
        pytest.param(None, "FineTune", ".spec", {**FINETUNE, "suspend": True}, FINETUNE, id="suspend"),
        pytest.param(
            None,
            "ModelDeployment",
            ".spec.adapters[]",
            {"name": "a", "fineTuneRef": {"name": "f"}, "checkpoint": "best"},
            None,
            id="adapter",
        ),
        pytest.param(
            "exactly one of the two",
            "ModelDeployment",
            ".spec.adapters[]",
            {"name": "a", "fineTuneRef": {"name": "f"}, "uri": "pvc://a/b"},
            None,
            id="adapter-from-two-places",
        ),
        pytest.param(
            "belong to a fineTuneRef",
            "ModelDeployment",
            ".spec.adapters[]",
            {"name": "a", "uri": "pvc://a/b", "checkpoint": "best"},
            None,
            id="checkpoint-of-a-uri",
        ),
        *(
            pytest.param(None, "FineTune", ".spec.resources.cpu", value, None, id=f"quantity-{value}")
            for value in (4, 0, "4", "1.5", "500m", "16Gi", "2k", "3E")
        ),
        *(
            pytest.param("write a number", "FineTune", ".spec.resources.cpu", value, None, id=f"no-quantity-{value}")
            for value in (-1, "-1", "", "4x", "16 GB", "16GB", "4K", "4mi", "1.", "Gi", "1e3")
        ),
        pytest.param("at most 48", "Project", "", {"metadata": {"name": "a" * 49}}, None, id="long-name"),
        pytest.param("at most 48", "Project", "", {"metadata": {"name": "1a"}}, None, id="name-with-a-digit-first"),
        pytest.param(None, "Project", "", {"metadata": {"name": "a" * 48}}, None, id="longest-name"),
        pytest.param(
            "name of the namespace's store service",
            "ModelDeployment",
            "",
            {"metadata": {"name": "codetune-store"}},
            None,
            id="name-of-the-store-service",
        ),
        pytest.param(None, "Project", "", {"metadata": {"name": "codetune-store"}}, None, id="project-of-that-name"),
        pytest.param(None, "Team", ".spec", {**COMPLETES, "projects": []}, None, id="team-with-a-default"),
        pytest.param(None, "Team", ".spec", {**COMPLETES, "projects": [SHOP]}, None, id="project-with-the-default"),
        pytest.param(None, "Team", ".spec", {"projects": [{**SHOP, **COMPLETES}]}, None, id="team-without-a-default"),
        pytest.param("give the team a completionModel", "Team", ".spec", {"projects": []}, None, id="team-of-nothing"),
        pytest.param(
            "give the team a completionModel",
            "Team",
            ".spec",
            {"projects": [SHOP, {"projectRef": {"name": "app"}, **COMPLETES}]},
            None,
            id="project-of-nothing",
        ),
        pytest.param(None, "Team", ".spec.projects", [SHOP, {"projectRef": {"name": "app"}}], None, id="two-projects"),
        pytest.param(
            "only once", "Team", ".spec.projects", [SHOP, {**SHOP, **COMPLETES}], None, id="the-same-project-twice"
        ),
        pytest.param("at most 48", "Team", "", {"metadata": {"name": "a" * 49}}, None, id="long-name-of-a-team"),
    ],
)
def test_a_rule_says(sentence: str | None, kind: str, path: str, new: Any, old: Any) -> None:
    (schema,) = (found for where, found in walk(SCHEMAS[kind]) if where == path)
    said = [rule["message"] for rule in schema["x-kubernetes-validations"] if not holds(rule["rule"], new, old)]
    assert len(said) == (sentence is not None)
    assert sentence is None or sentence in said[0]


def holds(rule: str, new: Any, old: Any) -> bool:
    if "oldSelf" in rule and old is None:
        return True
    environment = celpy.Environment()
    program = environment.program(environment.compile(rule))
    return bool(program.evaluate({"self": json_to_cel(new), "oldSelf": json_to_cel(old)}))


def test_the_chart_carries_the_same_definitions() -> None:
    for kind in KINDS:
        text = (crd.CHART_FOLDER / f"{kind.plural}.yaml").read_text()
        body = "\n".join(line for line in text.splitlines() if not line.startswith("{{-"))
        carried = yaml.safe_load(body)
        carried["metadata"].pop("annotations")
        assert carried == DEFINITIONS[kind.model.__name__]
