"""The scan Job: Project in, whole objects out."""

from typing import Any

import pytest
from codetune_api.common import Resources, Scheduling
from codetune_api.contracts import ScanConfig
from codetune_api.metadata import ANNOTATION_RESCAN
from codetune_api.project import Project
from codetune_operator.resources.pods import container, pod_template
from codetune_operator.resources.project.scan import build_scan, fetch_digest, scan_job_name
from codetune_operator.settings import Settings, parse_settings

Obj = dict[str, Any]
SETTINGS = parse_settings("images: {trainer: registry.example/codetune-trainer:7, pullSecrets: [pull]}")


def make_project(name: str = "mine", **spec: Any) -> Project:
    sources = [
        {
            "name": "app",
            "git": {"url": "git@git.example.org:app.git", "revision": "main"},
            "credentialsSecretRef": {"name": "deploy-key"},
        },
        {"name": "docs", "volume": {"claimName": "shared", "path": "docs"}},
    ]
    return Project.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "Project",
            "metadata": {"name": name, "namespace": "ns", "uid": "u1"},
            "spec": {"sources": sources, **spec},
        }
    )


CONFIG, JOB = build_scan(make_project(), SETTINGS)
POD: Obj = JOB["spec"]["template"]["spec"]


def test_the_job_gets_everything_from_its_configuration() -> None:
    config = ScanConfig.model_validate_json(CONFIG["data"]["config.json"])

    assert (config.namespace, config.name) == ("ns", "mine")
    assert [source.name for source in config.sources] == ["app", "docs"]
    assert (config.output, config.cache) == ("ns/projects/mine", "ns/projects/mine/sources")
    assert len(config.nonce) == 32


def test_credentials_are_files_that_belong_to_one_source_and_stop_no_other_while_they_are_missing() -> None:
    volumes = {volume["name"]: volume for volume in POD["volumes"]}

    assert volumes["credentials-0"]["secret"] == {"secretName": "deploy-key", "defaultMode": 0o440, "optional": True}
    assert {"name": "credentials-0", "mountPath": "/codetune/credentials/app", "readOnly": True} in mounts()


def test_a_volume_source_is_mounted_read_only() -> None:
    volumes = {volume["name"]: volume for volume in POD["volumes"]}

    assert volumes["source-1"]["persistentVolumeClaim"] == {"claimName": "shared", "readOnly": True}
    assert {"name": "source-1", "mountPath": "/codetune/volumes/docs", "readOnly": True} in mounts()


def test_children_go_with_their_project() -> None:
    owner = {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "Project",
        "name": "mine",
        "uid": "u1",
        "controller": True,
        "blockOwnerDeletion": True,
    }

    assert [obj["metadata"]["ownerReferences"] for obj in (CONFIG, JOB)] == [[owner], [owner]]
    assert JOB["metadata"]["labels"]["codetune.dev/project"] == "mine"
    assert JOB["spec"]["template"]["metadata"]["labels"] == JOB["metadata"]["labels"]


def test_the_pod_is_restricted_and_has_no_token() -> None:
    (scan,) = POD["containers"]

    assert POD["automountServiceAccountToken"] is False
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert scan["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert not [volume for volume in POD["volumes"] if "hostPath" in volume]


def test_a_retry_that_is_pointless_is_not_made() -> None:
    rules = JOB["spec"]["podFailurePolicy"]["rules"]

    assert {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [64]}} in rules
    assert JOB["spec"]["backoffLimit"] == 2
    assert POD["restartPolicy"] == "Never"


def test_settings_reach_the_pod() -> None:
    (scan,) = POD["containers"]

    assert scan["image"] == "registry.example/codetune-trainer:7"
    assert scan["command"] == ["python", "-m", "codetune_trainer", "scan"]
    assert scan["resources"] == {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    assert POD["imagePullSecrets"] == [{"name": "pull"}]


def test_the_same_project_gives_the_same_objects() -> None:
    assert build_scan(make_project(), SETTINGS) == (CONFIG, JOB)


def test_the_longest_name_still_fits() -> None:
    project = make_project("a" * 48)

    assert len(scan_job_name(project)) <= 63


FILE_ROOTS = [
    pytest.param(None, "{}", id="a cluster has none"),
    pytest.param("/srv/files", "fileRoot: /srv/files", id="a laptop has one"),
]


@pytest.mark.parametrize(("expected", "text"), FILE_ROOTS)
def test_file_urls_have_a_root_only_where_the_settings_say_so(expected: str | None, text: str) -> None:
    _, job = build_scan(make_project(), parse_settings(text))
    env = {entry["name"]: entry["value"] for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]}

    assert env.get("CODETUNE_FILE_ROOT") == expected
    assert env["CODETUNE_CONFIG"] == "/codetune/config/config.json"
    assert env["CODETUNE_STORE"] == "/codetune/store"
    assert env["HOME"] == env["TMPDIR"] == env["CODETUNE_SCRATCH"]


def test_scheduling_is_passed_through_as_it_is() -> None:
    settings = Settings()
    scheduling = Scheduling.from_wire(
        {
            "nodeSelector": {"gpu": "a100"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"x": 1}},
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
        }
    )
    gpu = container(name="c", image="i", command=["x"], settings=settings, resources=Resources(gpus=2, memory="8Gi"))

    spec = pod_template(labels={}, containers=[gpu], settings=settings, scheduling=scheduling)["spec"]

    assert {key: spec[key] for key in scheduling.to_wire()} == scheduling.to_wire()
    assert gpu["resources"] == {
        "requests": {"memory": "8Gi", "nvidia.com/gpu": "2"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "2"},
    }


def mounts() -> list[Obj]:
    found: list[Obj] = POD["containers"][0]["volumeMounts"]
    return found


def fetched(changes: Obj, spec: Obj, annotations: Obj) -> dict[str, str]:
    """What the next scan need not fetch, after one that ended well and then these changes."""
    project = make_project()
    sources = [
        {"name": "app", "commit": "c0ffee"},
        {"name": "docs", "files": 3},
        {"name": "depot", "digest": "sha256:" + "d" * 64},
        {"name": "away", "commit": "0ff", "reason": "SourceUnavailable"},
    ]
    status = {"sources": sources, "fetchDigest": fetch_digest(project), **changes}
    wire = project.to_wire()
    wire["spec"] |= spec
    wire["metadata"]["annotations"] = annotations
    config, _ = build_scan(Project.from_wire({**wire, "status": status}), SETTINGS)
    return ScanConfig.model_validate_json(config["data"]["config.json"]).fetched


KNOWN = {"app": "c0ffee", "depot": "sha256:" + "d" * 64}


@pytest.mark.parametrize(
    ("expected", "changes", "spec", "annotations"),
    [
        pytest.param(KNOWN, {}, {"files": {"types": ["Python"]}}, {}, id="other-rules"),
        pytest.param(KNOWN, {}, {"holdout": {"fraction": 0.2}}, {}, id="another-split"),
        pytest.param({}, {}, {"sources": [{"name": "app", "upload": {}}]}, {}, id="other-sources"),
        pytest.param({}, {}, {}, {ANNOTATION_RESCAN: "now"}, id="a-rescan-is-asked-for"),
        pytest.param({}, {"lastScheduledAt": "2026-01-01T00:00:00Z"}, {}, {}, id="its-time-has-come"),
        pytest.param({}, {"retries": 1}, {}, {}, id="tried-again"),
        pytest.param({}, {"fetchDigest": None}, {}, {}, id="never-scanned"),
    ],
)
def test_only_where_nothing_but_rules_changed_is_nothing_fetched_again(
    expected: dict[str, str], changes: Obj, spec: Obj, annotations: Obj
) -> None:
    assert fetched(changes, spec, annotations) == expected
