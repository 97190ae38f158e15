"""Environment variables and paths of containers, as processes of the host get them."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from codetune_local.images import find_image
from codetune_local.kubelet.environment import build_environment, expand
from codetune_local.kubelet.errors import ConfigError
from codetune_local.kubelet.launching import Placement, build_launch
from codetune_local.kubelet.podfolders import PodFolder
from codetune_local.kubelet.rewriting import PathRewriter

Obj = dict[str, Any]
POD: Obj = {
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "x"}, "annotations": {"a/b": "c"}},
    "spec": {
        "nodeName": "node",
        "containers": [{"name": "main", "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}}}],
    },
    "status": {"podIP": "127.130.0.1", "hostIP": "127.0.0.1"},
}


def lookup(kind: str, name: str) -> Mapping[str, str] | None:
    objects = {("configmaps", "settings"): {"color": "red", "size": "2"}, ("secrets", "keys"): {"token": "s3cret"}}
    return objects.get((kind, name))


def resolve(*env: Obj, **more: Any) -> dict[str, str]:
    return build_environment(POD, {**POD["spec"]["containers"][0], "env": list(env), **more}, lookup, {"cpu": "4"})


def ref(**source: Any) -> Obj:
    return {"name": "X", "valueFrom": source}


def field(path: str) -> Obj:
    return ref(fieldRef={"fieldPath": path})


@pytest.mark.parametrize(
    ("value", "entry"),
    [
        pytest.param("p", field("metadata.name"), id="name"),
        pytest.param("n", field("metadata.namespace"), id="namespace"),
        pytest.param("x", field("metadata.labels['app']"), id="label"),
        pytest.param("", field("metadata.labels['none']"), id="missing label"),
        pytest.param("c", field("metadata.annotations['a/b']"), id="annotation"),
        pytest.param("127.130.0.1", field("status.podIP"), id="pod address"),
        pytest.param("node", field("spec.nodeName"), id="node"),
        pytest.param("red", ref(configMapKeyRef={"name": "settings", "key": "color"}), id="configmap"),
        pytest.param("s3cret", ref(secretKeyRef={"name": "keys", "key": "token"}), id="secret"),
        pytest.param("2", ref(resourceFieldRef={"resource": "limits.cpu"}), id="cpu is rounded up"),
        pytest.param("1500", ref(resourceFieldRef={"resource": "limits.cpu", "divisor": "1m"}), id="in thousandths"),
        pytest.param("1024", ref(resourceFieldRef={"resource": "limits.memory", "divisor": "1Mi"}), id="in mebibytes"),
    ],
)
def test_a_variable_may_refer_to_something(value: str, entry: Obj) -> None:
    assert resolve(entry) == {"X": value}


@pytest.mark.parametrize(
    ("message", "entry"),
    [
        pytest.param('configmap "none" not found', ref(configMapKeyRef={"name": "none", "key": "k"}), id="configmap"),
        pytest.param('secret "none" not found', ref(secretKeyRef={"name": "none", "key": "k"}), id="secret"),
        pytest.param("couldn't find key k", ref(secretKeyRef={"name": "keys", "key": "k"}), id="key"),
        pytest.param("fieldPath 'spec.x' is not one of", field("spec.x"), id="field"),
    ],
)
def test_a_missing_reference_is_named(message: str, entry: Obj) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(entry)


def test_an_optional_reference_may_be_missing() -> None:
    assert resolve(ref(secretKeyRef={"name": "none", "key": "k", "optional": True})) == {}


def test_values_are_expanded_with_those_before_them() -> None:
    found = resolve(
        {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(C)-$$(A)"}, {"name": "C", "value": "late"}
    )
    assert found == {"A": "1", "B": "1-$(C)-$(A)", "C": "late"}


def test_whole_configmaps_come_first_and_single_variables_win() -> None:
    sources = [{"prefix": "S_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "no", "optional": True}}]
    found = resolve({"name": "S_color", "value": "blue"}, envFrom=sources)
    assert found == {"S_color": "blue", "S_size": "2"}


@pytest.mark.parametrize(
    ("expected", "text"),
    [("plain", "plain"), ("v", "$(K)"), ("$(U)", "$(U)"), ("$(K)", "$$(K)"), ("$", "$$"), ("$K", "$K")],
)
def test_only_parenthesised_names_are_expanded(expected: str, text: str) -> None:
    assert expand(text, {"K": "v"}) == expected


REWRITER = PathRewriter({"/data": "/host/d", "/data/inner": "/host/i", "/dev/termination-log": "/host/t"})


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        pytest.param("/host/d", "/data", id="the path itself"),
        pytest.param("/host/d/x.txt", "/data/x.txt", id="below it"),
        pytest.param("/host/i/y", "/data/inner/y", id="the longest wins"),
        pytest.param("/database", "/database", id="not the beginning of a longer name"),
        pytest.param("/data.bak", "/data.bak", id="nor of one with a suffix"),
        pytest.param("/my/data", "/my/data", id="not the end of a longer path"),
        pytest.param("my/data", "my/data", id="nor of a relative one"),
        pytest.param("file:///host/d/x", "file:///data/x", id="in a URL"),
        pytest.param("--dir=/host/d:/host/i", "--dir=/data:/data/inner", id="several"),
        pytest.param('cat "/host/d" > /host/t', 'cat "/data" > /dev/termination-log', id="in a script"),
    ],
)
def test_mount_paths_become_host_folders_at_component_boundaries(expected: str, text: str) -> None:
    assert REWRITER.rewrite(text) == expected


def test_what_was_put_in_is_not_rewritten_again() -> None:
    assert PathRewriter({"/a": "/b/x", "/b": "/c"}).rewrite("/a /b") == "/b/x /c"


def launch(
    container: Obj, image: str = "codetune-trainer", environment: Obj | None = None, gpus: tuple[int, ...] = ()
) -> Any:
    found = find_image(image)
    assert found is not None
    placement = Placement(PodFolder(Path("/state/pods/u")), {"store": Path("/host/store")}, "127.130.0.1", gpus, (2, 3))
    return build_launch(POD, {"name": "main", **container}, found, environment or {}, 1, placement)


@pytest.mark.parametrize(
    ("argv", "container", "image"),
    [
        pytest.param(
            [sys.executable, "-m", "codetune_trainer", "scan"], {"args": ["scan"]}, "codetune-trainer", id="args"
        ),
        pytest.param([sys.executable, "-c", "x"], {"command": ["python", "-c", "x"]}, "codetune-trainer", id="command"),
        pytest.param(["ls", "-l"], {"command": ["ls"], "args": ["-l"]}, "busybox", id="both"),
        pytest.param(["sh"], {}, "busybox", id="the image's default"),
        pytest.param(
            ["ls", "/host/store/a"], {"command": ["ls", "$(DIR)/a"], **{}}, "busybox", id="expanded, rewritten"
        ),
    ],
)
def test_command_and_args_follow_the_rules_of_images(argv: list[str], container: Obj, image: str) -> None:
    mounted = {"volumeMounts": [{"name": "store", "mountPath": "/store"}]}
    assert launch({**container, **mounted}, image, {"DIR": "/store"}).argv == argv


def test_a_process_gets_its_own_address_scratch_and_gpus() -> None:
    found = launch(
        {"volumeMounts": [{"name": "store", "mountPath": "/store", "subPath": "sub"}]},
        gpus=(0, 2),
        environment={"AT": "/store"},
    )
    expected = {
        "CODETUNE_BIND_HOST": "127.130.0.1",
        "HOME": "/state/pods/u/scratch",
        "TMPDIR": "/state/pods/u/scratch",
        "CUDA_VISIBLE_DEVICES": "0,2",
        "HOSTNAME": "p",
        "AT": "/host/store/sub",
    }
    assert expected.items() <= found.env.items()
    assert (found.cores, found.folder) == ([2, 3], "/state/pods/u/containers/main/1")


def test_a_process_sees_nothing_of_the_daemons_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "mine")
    monkeypatch.setenv("KUBECONFIG", "/root/config")
    env = launch({}).env
    assert "HF_TOKEN" not in env
    assert "KUBECONFIG" not in env
    assert env["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("known", "reference"),
    [
        (True, "codetune-trainer"),
        (True, "codetune-trainer:0.1.0"),
        (True, "ghcr.io:5000/acme/codetune-server@sha256:" + "a" * 64),
        (True, "docker.io/library/busybox:1.36"),
        (True, "local/exec"),
        (False, "nginx"),
        (False, "codetune-trainer-extra"),
        (False, ""),
    ],
)
def test_images_are_known_by_the_last_part_of_their_name(known: bool, reference: str) -> None:
    assert (find_image(reference) is not None) is known
