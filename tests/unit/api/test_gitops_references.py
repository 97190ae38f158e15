"""kustomize's renamed names reach every field of ours that names another object: of the example's configuration, which
people copy, nothing may be missing. The fields come from the models' schemas."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from codetune_api.crd import KINDS, build_schema
from kustomizing import GITOPS, OVERLAYS, render_kustomization

Obj = dict[str, Any]
CONFIGURATION = GITOPS / "kustomize" / "base" / "kustomizeconfig.yaml"
TARGETS = {
    "projectRef": "Project",
    "fineTuneRef": "FineTune",
    "deploymentRef": "ModelDeployment",
    "credentialsSecretRef": "Secret",
    "modelSecretRef": "Secret",
    "apiKeysSecretRef": "Secret",
    "imagePullSecrets": "Secret",
    "secretKeyRef": "Secret",
    "configMapKeyRef": "ConfigMap",
    "claimName": "PersistentVolumeClaim",
    "priorityClassName": "PriorityClass",
    "runtimeClassName": "RuntimeClass",
    "queueName": "LocalQueue",
}
NAMES_NOTHING = {"servedModelName"}
VERSIONS = {
    "PriorityClass": "scheduling.k8s.io/v1",
    "RuntimeClass": "node.k8s.io/v1",
    "LocalQueue": "kueue.x-k8s.io/v1beta2",
    **dict.fromkeys(("Secret", "ConfigMap", "PersistentVolumeClaim"), "v1"),
}
OURS = "codetune.dev/v1alpha1"


def find_references(schema: Obj, path: str) -> Iterator[tuple[str, str]]:
    """Path of each field that names an object, and the kind that it names; a new sort of field needs a row above."""
    for key, inner in (schema.get("properties") or {}).items():
        here = f"{path}/{key}"
        if key.endswith(("Ref", "Refs", "Name", "Names", "Secret", "Secrets")) and key not in NAMES_NOTHING:
            yield (here if inner["type"] == "string" else f"{here}/name"), TARGETS[key]
        else:
            yield from find_references(inner, here)
    if "items" in schema:
        yield from find_references(schema["items"], path)


REFERENCES = sorted(
    (kind.model.__name__, path, target)
    for kind in KINDS
    for path, target in find_references(build_schema(kind.model)["properties"]["spec"], "spec")
)


def test_there_are_references_of_every_sort() -> None:
    assert {target for _, _, target in REFERENCES} == set(TARGETS.values())
    assert ("Team", "spec/projects/completionModel/deploymentRef/name", "ModelDeployment") in REFERENCES


def test_the_configuration_names_exactly_the_references_of_the_models() -> None:
    entries = yaml.safe_load(CONFIGURATION.read_text())["nameReference"]
    listed = [(field["kind"], field["path"], entry["kind"]) for entry in entries for field in entry["fieldSpecs"]]
    assert sorted(listed) == REFERENCES
    assert {field["group"] for entry in entries for field in entry["fieldSpecs"]} == {"codetune.dev"}


def write(folder: Path, *objects: Obj, **kustomization: Any) -> None:
    """A kustomization of these objects with the example's configuration."""
    (folder / "objects.yaml").write_text(yaml.safe_dump_all(objects))
    (folder / "kustomizeconfig.yaml").write_text(CONFIGURATION.read_text())
    told = {"resources": ["objects.yaml"], "configurations": ["kustomizeconfig.yaml"], **kustomization}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(told))


def make(kind: str, name: str, **more: Any) -> Obj:
    return {"apiVersion": VERSIONS.get(kind, OURS), "kind": kind, "metadata": {"name": name}, **more}


def put(path: str, name: str) -> Obj:
    """An object's part with a name at a path; what may be a list is one."""
    first, *rest = path.split("/")
    if not rest:
        return {first: name}
    inner = put("/".join(rest), name)
    return {first: [inner] if first in {"sources", "adapters", "projects", "env", "imagePullSecrets"} else inner}


def take(obj: Any, path: str) -> str:
    for key in path.split("/"):
        obj = obj[0][key] if isinstance(obj, list) else obj[key]
    return str(obj)


@pytest.mark.parametrize(("kind", "path", "target"), REFERENCES, ids=lambda part: str(part))
def test_a_prefix_reaches_a_reference(kind: str, path: str, target: str, tmp_path: Path) -> None:
    write(tmp_path, make(kind, "one", **put(path, "other")), make(target, "other"), namePrefix="dev-")
    (found,) = [obj for obj in render_kustomization(tmp_path) if obj["metadata"]["name"] == "dev-one"]
    assert take(found, path) == "dev-other"


def test_what_is_not_in_git_keeps_its_name(tmp_path: Path) -> None:
    write(tmp_path, make("Team", "one", spec={"apiKeysSecretRef": {"name": "from-elsewhere"}}), namePrefix="dev-")
    (found,) = render_kustomization(tmp_path)
    assert found["spec"]["apiKeysSecretRef"]["name"] == "from-elsewhere"


def rendered(stage: str) -> dict[str, list[Obj]]:
    """The objects of an overlay by kind."""
    (folder,) = [overlay for overlay in OVERLAYS if overlay.name == stage]
    found: dict[str, list[Obj]] = {}
    for obj in render_kustomization(folder):
        found.setdefault(obj["kind"], []).append(obj)
    return found


def read_names(objects: dict[str, list[Obj]], field: str) -> list[str]:
    """Names in the references of this field, anywhere."""

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == field:
                    yield inner["name"]
                else:
                    yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)

    return [name for found in objects.values() for obj in found for name in walk(obj)]


@pytest.mark.parametrize("stage", ["dev", "prod"])
@pytest.mark.parametrize("field", ["projectRef", "fineTuneRef", "deploymentRef"])
def test_an_overlay_s_references_lead_to_its_own_objects(stage: str, field: str) -> None:
    objects = rendered(stage)
    names = read_names(objects, field)
    assert names
    assert set(names) <= {obj["metadata"]["name"] for obj in objects[TARGETS[field]]}


def test_generated_secrets_are_found_under_their_hashes() -> None:
    objects = rendered("dev")
    made = {obj["metadata"]["name"] for obj in objects["Secret"]}
    used = {name for field in TARGETS if field.endswith("SecretRef") for name in read_names(objects, field)}
    assert used == made
    assert sum(name.count("-") > 2 for name in made) == 3


def test_the_secret_of_a_field_that_can_not_change_has_no_hash() -> None:
    assert set(read_names(rendered("dev"), "modelSecretRef")) == {"dev-hub-token"}


@pytest.mark.parametrize("stage", ["dev", "prod"])
def test_git_never_says_replicas_of_what_somebody_else_scales(stage: str) -> None:
    (served,) = rendered(stage)["ModelDeployment"]
    assert "replicas" not in served["spec"]


def test_there_are_two_stages() -> None:
    assert [overlay.name for overlay in OVERLAYS] == ["dev", "prod"]
