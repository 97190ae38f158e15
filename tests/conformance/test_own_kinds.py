"""Codetune's own kinds: mistakes that one object shows are refused by the API server, with our sentence.

What `kubectl apply` itself says; no operator is needed for that.
"""

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from conformance.conftest import Kubectl

pytestmark = pytest.mark.usefixtures("own_kinds")

Obj = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "examples"
# Those for GitOps are parts of overlays, and of other tools: tests/integration/test_operator_gitops.py has them.
EXAMPLES = sorted(path for path in FOLDER.rglob("*.yaml") if "gitops" not in path.relative_to(FOLDER).parts)

PROJECT: Obj = {
    "apiVersion": "codetune.dev/v1alpha1",
    "kind": "Project",
    "metadata": {"name": "example"},
    "spec": {"suspend": True, "sources": [{"name": "a", "git": {"url": "https://git.example.com/a.git"}}]},
}
FINETUNE: Obj = {
    "apiVersion": "codetune.dev/v1alpha1",
    "kind": "FineTune",
    "metadata": {"name": "example"},
    "spec": {"projectRef": {"name": "absent"}, "baseModel": "hf://org/model", "resources": {"gpus": 0}},
}
DEPLOYMENT: Obj = {
    "apiVersion": "codetune.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "example"},
    "spec": {"baseModel": "hf://org/model", "replicas": 0, "resources": {"gpus": 0}},
}

TEAM: Obj = {
    "apiVersion": "codetune.dev/v1alpha1",
    "kind": "Team",
    "metadata": {"name": "example"},
    "spec": {
        "apiKeysSecretRef": {"name": "keys"},
        "completionModel": {"deploymentRef": {"name": "absent"}},
        "replicas": 0,
    },
}
SHOP: Obj = {"projectRef": {"name": "shop"}}


def change(obj: Obj, **spec: Any) -> Obj:
    """The object with other fields in its spec."""
    changed = copy.deepcopy(obj)
    changed["spec"] |= spec
    return changed


def apply(kubectl: "Kubectl", obj: Obj, *options: str) -> str:
    """What kubectl says, whatever becomes of it."""
    done = kubectl.run("apply", *options, "-f", "-", text=yaml.safe_dump(obj))
    return done.stdout + done.stderr


def is_gone(kubectl: "Kubectl", kind: str, name: str) -> bool:
    """Whether an object does not exist."""
    return not kubectl("get", kind, name, "--ignore-not-found", "-o", "name")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_example_is_accepted_as_it_stands(path: Path, kubectl: "Kubectl") -> None:
    said = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(path))
    assert "created (server dry run)" in said


SOURCE = PROJECT["spec"]["sources"][0]


@pytest.mark.parametrize(
    ("sentences", "obj"),
    [
        pytest.param(
            ["spec.preset", 'Unsupported value: "Huge"', '"Smaller"'], change(FINETUNE, preset="Huge"), id="enum"
        ),
        pytest.param(["spec.lora.rank", "-1"], change(FINETUNE, lora={"rank": -1}), id="negative-rank"),
        pytest.param(
            ['spec.resources.memory: Invalid value: "24GB": write a number', "as in 4, 500m or 16Gi"],
            change(FINETUNE, resources={"memory": "24GB"}),
            id="quantity",
        ),
        pytest.param(
            ["spec.resources.cpu: Invalid value: -1: write a number that is not negative"],
            change(FINETUNE, resources={"cpu": -1}),
            id="negative-quantity",
        ),
        pytest.param(
            ["spec.resources.cpu", "of type integer,string"],
            change(FINETUNE, resources={"cpu": 1.5}),
            id="fraction-without-quotes",
        ),
        pytest.param(
            ['spec.adapterCacheSize: Invalid value: "16 GB": write a number'],
            change(DEPLOYMENT, adapterCacheSize="16 GB"),
            id="quantity-with-a-space",
        ),
        pytest.param(
            ["spec.sources[0].git.url", "must not hold credentials", "credentialsSecretRef"],
            change(PROJECT, sources=[{"name": "a", "git": {"url": "https://me:secret@git.example.com/a.git"}}]),
            id="password-in-a-url",
        ),
        pytest.param(["spec.retries", "integer"], change(FINETUNE, retries="three"), id="wrong-type"),
        pytest.param(["spec.projectRef", "Required value"], change(FINETUNE, projectRef=None), id="missing-field"),
        pytest.param(
            ["spec.baseModel", '"gpt2"', "write hf://ORG/NAME"],
            change(FINETUNE, baseModel="gpt2"),
            id="model-without-scheme",
        ),
        pytest.param(
            ["spec.sources[0]", "exactly one of git, archive, upload and volume"],
            change(PROJECT, sources=[{**SOURCE, "upload": {}}]),
            id="two-sources-in-one-entry",
        ),
        pytest.param(
            ["spec.sources[1]", "Duplicate value"], change(PROJECT, sources=[SOURCE, SOURCE]), id="same-name-twice"
        ),
        pytest.param(
            ["spec.sources[0].git.url"],
            change(PROJECT, sources=[{"name": "a", "git": {"url": "ext::sh -c id"}}]),
            id="transport-that-runs-a-program",
        ),
        pytest.param(
            ["spec.sources[0].git.url"],
            change(PROJECT, sources=[{"name": "a", "git": {"url": "--upload-pack=id"}}]),
            id="url-like-an-option",
        ),
        *(
            pytest.param(
                ["spec.sources[0]", "git.path is a path inside the repository: no leading / and no .."],
                change(PROJECT, sources=[{"name": "a", "git": {**SOURCE["git"], "path": path}}]),
                id=f"path-{name}",
            )
            for name, path in (("absolute", "/etc"), ("above", "../other"), ("above-inside", "a/../../other"))
        ),
        pytest.param(["spec.lora", "vLLM serves no DoRA adapter"], change(FINETUNE, lora={"dora": True}), id="no-dora"),
        pytest.param(
            ["Float16, which needs a GPU"],
            change(FINETUNE, training={"precision": "Float16"}, resources={"gpus": 0}),
            id="half-precision-without-a-gpu",
        ),
        pytest.param(
            ["spec.files.quality.baseModel", "write hf://ORG/NAME"],
            change(PROJECT, files={"quality": {"baseModel": "gpt2"}}),
            id="quality-model-without-scheme",
        ),
        pytest.param(
            ["spec.files.quality.maxLoss"],
            change(PROJECT, files={"quality": {"baseModel": "hf://org/model", "maxLoss": 0}}),
            id="no-loss-allowed",
        ),
        pytest.param(
            ["spec.files.quality", "at most 1"],
            change(PROJECT, files={"quality": {"baseModel": "hf://org/model", "resources": {"gpus": 2}}}),
            id="quality-on-two-gpus",
        ),
        pytest.param(
            ["names this FineTune itself"],
            change(FINETUNE, resumeFrom={"fineTuneRef": {"name": "example"}}),
            id="resumes-from-itself",
        ),
        pytest.param(
            ["spec.resumeFrom.checkpoint", "should match"],
            change(FINETUNE, resumeFrom={"fineTuneRef": {"name": "other"}, "checkpoint": "newest"}),
            id="no-such-kind-of-checkpoint",
        ),
        pytest.param(
            ["training.sharding is On, which takes several processes"],
            change(FINETUNE, training={"sharding": "On"}, resources={"gpus": 1}),
            id="sharing-weights-alone",
        ),
        pytest.param(
            ["lora.quantization is Nf4, which needs a GPU"],
            change(FINETUNE, lora={"quantization": "Nf4"}, resources={"gpus": 0}),
            id="4-bits-without-a-gpu",
        ),
        pytest.param(
            ["training.sharding is On, but weights in 4 bits"],
            change(FINETUNE, lora={"quantization": "Nf4"}, training={"sharding": "On"}, resources={"gpus": 2}),
            id="4-bits-spread-over-gpus",
        ),
        pytest.param(["spec.resources.nodes"], change(FINETUNE, resources={"nodes": 0}), id="no-node"),
        pytest.param(["spec.holdout.fraction"], change(PROJECT, holdout={"fraction": 0.9}), id="out-of-range"),
        pytest.param(
            ["spec.adapters[0]", "exactly one of the two"],
            change(DEPLOYMENT, adapters=[{"name": "a"}]),
            id="adapter-from-nowhere",
        ),
        pytest.param(["spec.replicas"], change(DEPLOYMENT, replicas=-1), id="negative-replicas"),
        pytest.param(["give the team a completionModel"], change(TEAM, completionModel=None), id="team-of-nothing"),
        pytest.param(
            ["give the team a completionModel"],
            change(TEAM, completionModel=None, projects=[SHOP]),
            id="project-of-nothing",
        ),
        pytest.param(
            ["spec.projects", "a project can be in projects only once"],
            change(TEAM, projects=[SHOP, {**SHOP, "completionModel": TEAM["spec"]["completionModel"]}]),
            id="the-same-project-twice",
        ),
        pytest.param(
            ["spec.projects", "64"],
            change(TEAM, projects=[{"projectRef": {"name": f"p{number}"}} for number in range(65)]),
            id="too-many-projects",
        ),
        pytest.param(
            ["spec.apiKeysSecretRef", "Required value"], change(TEAM, apiKeysSecretRef=None), id="team-without-keys"
        ),
        pytest.param(
            ["spec.completionModel.deploymentRef", "Required value"],
            change(TEAM, completionModel={"model": "mine"}),
            id="model-of-no-deployment",
        ),
        pytest.param(
            ["spec.limits.requestsPerMinute", "greater than or equal to 1"],
            change(TEAM, limits={"requestsPerMinute": -5}),
            id="negative-limit",
        ),
        pytest.param(["spec.replicas"], change(TEAM, replicas=-1), id="negative-gateways"),
        pytest.param(["at most 48 characters"], {**TEAM, "metadata": {"name": "x" * 49}}, id="team-name-too-long"),
        pytest.param(
            ["begins with a letter"], {**TEAM, "metadata": {"name": "1st"}}, id="team-name-with-a-digit-first"
        ),
        pytest.param(
            ["at most 48 characters"], {**PROJECT, "metadata": {"name": "x" * 49}}, id="name-too-long-for-its-children"
        ),
    ],
)
def test_a_mistake_is_refused(sentences: list[str], obj: Obj, kubectl: "Kubectl") -> None:
    said = apply(kubectl, obj)
    for sentence in sentences:
        assert sentence in said
    assert is_gone(kubectl, obj["kind"], obj["metadata"]["name"])


def test_an_unknown_field_is_an_error_by_default_and_a_warning_on_request(kubectl: "Kubectl") -> None:
    mistaken = change(PROJECT, sourcez=[])
    assert 'unknown field "spec.sourcez"' in apply(kubectl, mistaken)
    assert is_gone(kubectl, "project", "example")
    said = apply(kubectl, mistaken, "--validate=warn")
    assert 'Warning: unknown field "spec.sourcez"' in said
    assert "sourcez" not in json.loads(kubectl("get", "project", "example", "-o", "json"))["spec"]


@pytest.mark.parametrize(
    ("sentence", "before", "after"),
    [
        pytest.param("another base model", FINETUNE, change(FINETUNE, baseModel="hf://org/other"), id="base-model"),
        pytest.param("another project", FINETUNE, change(FINETUNE, projectRef={"name": "other"}), id="project"),
        pytest.param("one set of parameters", FINETUNE, change(FINETUNE, preset="Smaller"), id="preset"),
        pytest.param("one set of parameters", FINETUNE, change(FINETUNE, lora={"rank": 4}), id="rank"),
        pytest.param(
            "resumeFrom can't be changed",
            FINETUNE,
            change(FINETUNE, resumeFrom={"fineTuneRef": {"name": "other"}}),
            id="resume-from",
        ),
        pytest.param("modelSecretRef", FINETUNE, change(FINETUNE, modelSecretRef={"name": "s"}), id="secret"),
        pytest.param("another base model", DEPLOYMENT, change(DEPLOYMENT, baseModel="hf://org/other"), id="deployment"),
    ],
)
def test_a_field_that_can_not_change_says_what_to_do(
    sentence: str, before: Obj, after: Obj, kubectl: "Kubectl"
) -> None:
    apply(kubectl, before)
    said = apply(kubectl, after)
    assert "is invalid" in said
    assert sentence in said


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        pytest.param("resources", change(FINETUNE, resources={"gpus": 1}), id="resources"),
        pytest.param("suspend", change(FINETUNE, suspend=True), id="suspend"),
        pytest.param("retries", change(FINETUNE, retries=1), id="retries"),
        pytest.param("apiKeysSecretRef", change(TEAM, apiKeysSecretRef={"name": "others"}), id="keys-of-a-team"),
        pytest.param("limits", change(TEAM, limits={"requestsPerMinute": 60}), id="limits-of-a-team"),
    ],
)
def test_a_field_that_can_change_does(field: str, changed: Obj, kubectl: "Kubectl") -> None:
    apply(kubectl, TEAM if changed["kind"] == "Team" else FINETUNE)
    assert "configured" in apply(kubectl, changed)
    spec = json.loads(kubectl("get", changed["kind"], "example", "-o", "json"))["spec"]
    wanted = changed["spec"][field]
    assert spec[field] == wanted or wanted.items() <= spec[field].items()
