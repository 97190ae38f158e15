"""Where a base model comes from: its URI, and what a pod needs to read it."""

import pytest
from codetune_api.common import Failure
from codetune_operator.resources.models import (
    BucketModel,
    HubModel,
    ModelSource,
    canonical_model,
    default_model_name,
    locate_model,
)
from codetune_operator.settings import S3Settings, Settings

CLAIM = ({"name": "model", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},)


def mounted(path: str) -> ModelSource:
    mount = {"name": "model", "mountPath": "/codetune/models/models", "readOnly": True}
    return ModelSource(path=f"/codetune/models/models/{path}", volumes=CLAIM, mounts=(mount,))


@pytest.mark.parametrize(
    ("expected", "uri"),
    [
        pytest.param(mounted("qwen/base"), "pvc://models/qwen/base", id="claim"),
        pytest.param(mounted("qwen"), "pvc://models/qwen/", id="claim with a slash at the end"),
        pytest.param(ModelSource(path="/srv/SmolLM2"), "file:///SmolLM2", id="file"),
        pytest.param(
            ModelSource(path="/codetune/scratch/model", origin=HubModel("org/name", "main")), "hf://org/name", id="hub"
        ),
        pytest.param(
            ModelSource(path="/codetune/scratch/model", origin=HubModel("org/name", "v2/x")),
            "hf://org/name@v2/x",
            id="hub with revision",
        ),
        pytest.param(
            ModelSource(path="/codetune/scratch/model", origin=BucketModel("s3://models/qwen/base")),
            "s3://models/qwen//base/",
            id="bucket",
        ),
    ],
)
def test_a_uri_becomes_a_folder_in_the_pod(expected: ModelSource, uri: str) -> None:
    assert locate_model(uri, Settings(file_root="/srv/", s3=S3Settings())) == expected


@pytest.mark.parametrize(
    ("message", "uri", "file_root"),
    [
        pytest.param("no `fileRoot`", "file:///SmolLM2", None, id="file on a real cluster"),
        pytest.param("`..`", "file:///../etc", "/srv", id="out of the file root"),
        pytest.param("no `s3` in its settings", "s3://models/base", None, id="bucket that nothing is known of"),
        pytest.param("`..`", "s3://models/../base", None, id="out of the bucket"),
        pytest.param("`..`", "pvc://models/../../etc", None, id="out of the claim"),
    ],
)
def test_a_model_out_of_reach_is_refused_with_a_cure(message: str, uri: str, file_root: str | None) -> None:
    failure = locate_model(uri, Settings(file_root=file_root))
    assert isinstance(failure, Failure)
    assert failure.reason == "UnsupportedModel"
    assert uri in failure.message
    assert message in failure.message
    assert failure.hint


@pytest.mark.parametrize(
    ("same", "first", "second"),
    [
        pytest.param(True, "hf://a/b", "hf://a/b@main", id="main is the default"),
        pytest.param(False, "hf://a/b", "hf://a/b@v1", id="another revision"),
        pytest.param(False, "hf://a/b", "hf://a/c", id="another model"),
        pytest.param(True, "pvc://c/x/y", "pvc://c/x//y/", id="slashes do not count"),
        pytest.param(True, "file:///x", "file:///x/", id="slash at the end"),
        pytest.param(False, "file:///x/y", "pvc://x/y", id="another kind of place"),
    ],
)
def test_base_models_are_compared_by_what_they_name(same: bool, first: str, second: str) -> None:
    assert (canonical_model(first) == canonical_model(second)) is same


@pytest.mark.parametrize(
    ("expected", "uri"),
    [
        ("Qwen2.5-Coder-1.5B", "hf://Qwen/Qwen2.5-Coder-1.5B@main"),
        ("base", "pvc://models/qwen/base/"),
        ("SmolLM2", "file:///SmolLM2"),
    ],
)
def test_a_model_is_served_under_the_last_part_of_its_uri(expected: str, uri: str) -> None:
    assert default_model_name(uri) == expected
