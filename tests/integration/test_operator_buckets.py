"""A store in a bucket of a real S3-compatible server: scan, train, killed on the way, download, purge; no claim at all.

Left out: real vLLM, which gets its adapters from the same folder of its pod whatever they came from; what brings them
there out of a bucket is tested with a fake one (tests/unit/server/test_bucket_adapters.py).
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from bucket_server import ACCESS_KEY, SECRET_KEY, BucketServer, serve_buckets
from codetune_bucket.bucket import Bucket
from codetune_bucket.location import Location
from codetune_cli.main import main

if TYPE_CHECKING:
    from integration.conftest import Installation, Team

Obj = dict[str, Any]

pytestmark = pytest.mark.timeout(600)

CODE = {
    f"shop/{name}.py": "".join(f"def {name}_{number}(value):\n    return value + {number}\n\n" for number in range(40))
    for name in ("cart", "order", "stock", "tax", "price", "store")
}
STORE = "s3://artifacts/codetune"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    with serve_buckets(tmp_path_factory.mktemp("buckets")) as running:
        running.make_bucket("artifacts")
        yield running


@pytest.fixture(scope="module", autouse=True)
def bucketed(installation: "Installation", server: BucketServer) -> Iterator[None]:
    """The operator, with a bucket as the store of every namespace."""
    settings = yaml.safe_load(installation.settings.read_text())
    settings["store"] = {**settings["store"], "bucket": STORE, "size": "1Gi"}
    settings["s3"] = {"endpoint": server.endpoint, "credentialsSecretName": "bucket-keys"}
    before, installation.settings = installation.settings, installation.folder / "bucket-settings.yaml"
    installation.settings.write_text(yaml.safe_dump(settings))
    if installation.process is not None:
        installation.end_operator(signal.SIGTERM)
    installation.start_operator()
    yield
    installation.end_operator(signal.SIGTERM)
    installation.settings = before
    installation.start_operator()


@pytest.fixture
def bucket(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The store, as an administrator sees it."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return Bucket(Location.parse(STORE))


def give_keys(team: "Team", secret: str = SECRET_KEY) -> None:
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": secret}
    team.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket-keys"}, "stringData": keys})


def make_project(team: "Team", **more: Any) -> Obj:
    source = {"name": "app", "git": {"url": team.repository("shop", CODE)}}
    spec = {"sources": [source], "holdout": {"fraction": 0.2}, **more}
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": "Project", "metadata": {"name": "shop"}, "spec": spec}


def make_finetune(name: str, model: str, steps: int, **more: Any) -> Obj:
    spec: Obj = {
        "projectRef": {"name": "shop"},
        "baseModel": model,
        "lora": {"rank": 4},
        "training": {"maxSteps": steps, "sequenceLength": 64, "batchTokens": 128, "learningRate": 0.001},
        "checkpoints": {"everySteps": 10, "keep": 2},
        "resources": {"gpus": 0, "cpu": "100m", "memory": "3Gi"},
        **more,
    }
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name}, "spec": spec}


def paths(bucket: Bucket, folder: str) -> list[str]:
    return [found.path for found in bucket.list(folder)]


def ready(team: "Team", kind: str, name: str) -> Obj:
    entries = team.status(kind, name).get("conditions", [])
    return next((dict(entry) for entry in entries if entry["type"] == "Ready"), {})


def test_a_killed_run_goes_on_from_the_bucket_and_is_removed_from_it(
    team: "Team", model: str, bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    give_keys(team)
    team.apply(make_project(team), make_finetune("mine", model, 200))
    runs = f"{team.name}/finetunes"
    # Not in status, which comes a little later: the run must not be done by then.
    team.wait_until(
        lambda: any(path.endswith("MANIFEST.json") for path in paths(bucket, runs)), "there is a checkpoint", 240
    )
    (pod,) = [found for found in team.get("pods")["items"] if found["metadata"]["name"].startswith("mine-train-")]
    for process in team.installation.cluster.processes_of(pod["metadata"]["uid"]):
        os.kill(process, signal.SIGKILL)
    status = team.wait_for_phase("ft", "mine", "Succeeded", 240)["status"]

    assert status["restarts"] == 1
    assert {event["reason"] for event in team.get("events")["items"]} >= {"Started", "Restarted", "Succeeded"}
    assert team.names("persistentvolumeclaims") == []
    project = team.status("cproj", "shop")
    digits = project["revision"].removeprefix("sha256:")
    assert status["dataset"]["uri"] == project["uri"] == f"{STORE}/{team.name}/projects/shop/{digits}"
    for entry in status["checkpoints"]:
        assert f"{entry['uri'].removeprefix(f'{STORE}/')}/MANIFEST.json" in paths(bucket, team.name)
    everything = team.kubectl("get", "codetune,configmaps,jobs,pods,events", "-o", "yaml")
    everything += team.kubectl("logs", f"job/{status['jobName']}")
    assert SECRET_KEY not in everything
    assert ACCESS_KEY not in everything

    where = ["--kubeconfig", str(team.installation.cluster.kubeconfig), "-n", team.name]
    code = main(["download", "mine", "-o", str(tmp_path / "adapter"), *where])
    assert code == 0, capsys.readouterr().err
    assert {path.name for path in (tmp_path / "adapter").iterdir()} >= {"adapter_model.safetensors", "README.md"}
    assert main(["files", "shop", *where]) == 0
    assert "shop/cart.py" in capsys.readouterr().out

    team.kubectl("delete", "ft", "mine", "--timeout=120s")
    assert paths(bucket, runs) == []
    assert paths(bucket, f"{team.name}/projects/shop")
    team.kubectl("delete", "cproj", "shop", "--timeout=120s")
    assert paths(bucket, team.name) == []


def test_a_scan_takes_up_what_the_one_before_left_in_the_bucket(team: "Team", bucket: Bucket) -> None:
    give_keys(team)
    team.apply(make_project(team))
    first = team.wait_for_phase("cproj", "shop", "Ready", 120)["status"]
    team.kubectl("annotate", "cproj", "shop", "codetune.dev/rescan=1")
    second = team.wait_until(
        lambda: found if (found := team.status("cproj", "shop")).get("scannedAt") != first["scannedAt"] else None,
        "it is scanned again",
        120,
    )
    assert second["revision"] == first["revision"]
    assert f"{team.name}/projects/shop/verdicts/meta.json" in paths(bucket, team.name)

    repository = team.repository("shop", {"shop/more.py": "def more(value):\n    return value + 1\n"})
    assert repository
    team.kubectl("annotate", "cproj", "shop", "--overwrite", "codetune.dev/rescan=2")
    team.wait_until(lambda: team.status("cproj", "shop")["revision"] != first["revision"], "there is more", 120)
    digits = first["revision"].removeprefix("sha256:")
    assert paths(bucket, f"{team.name}/projects/shop/{digits}"), "runs may have pinned it when that scan began"
    team.kubectl("annotate", "cproj", "shop", "--overwrite", "codetune.dev/rescan=3")
    team.wait_until(
        lambda: not paths(bucket, f"{team.name}/projects/shop/{digits}"), "the dataset that nobody uses goes", 60
    )


def test_wrong_keys_are_said_and_their_cure_takes_effect(team: "Team") -> None:
    give_keys(team, "not-the-secret-key")
    team.apply(make_project(team))
    failed = team.wait_for_phase("cproj", "shop", "Failed", 120)["status"]["failure"]
    assert failed["reason"] == "StoreDenied"
    assert "does not accept the secret key" in failed["message"]
    assert "s3.credentialsSecretName" in failed["hint"]
    assert "not-the-secret-key" not in json.dumps(team.get("cproj,events,pods"))

    give_keys(team)
    team.kubectl("annotate", "cproj", "shop", "--overwrite", "codetune.dev/rescan=1")
    team.wait_for_phase("cproj", "shop", "Ready", 120)


def test_a_namespace_without_keys_is_told_which_secret_it_needs(team: "Team") -> None:
    team.apply(make_project(team))
    message = team.wait_until(
        lambda: text if "bucket-keys" in (text := ready(team, "cproj", "shop").get("message", "")) else None,
        "it names the Secret",
        120,
    )
    assert "CreateContainerConfigError" in message
    team.kubectl("delete", "cproj", "shop", "--wait=false")
    give_keys(team)
    team.wait_until(lambda: team.is_gone("cproj", "shop"), "the finalizer lets go", 120)


def test_a_namespace_goes_with_everything_in_it(team: "Team", bucket: Bucket) -> None:
    give_keys(team)
    team.apply(make_project(team))
    team.wait_for_phase("cproj", "shop", "Ready", 120)
    team.installation.cluster.kubectl("delete", "namespace", team.name, "--timeout=120s")
    left = paths(bucket, team.name)
    assert left, "nothing can be run in a namespace that goes away: what it had in the bucket stays there"
    bucket.remove(left)


def test_serving_is_set_up_to_bring_adapters_out_of_buckets(team: "Team", server: BucketServer) -> None:
    adapters = [{"name": "theirs", "uri": "s3://others/adapter"}, {"name": "old", "uri": "pvc://codetune-artifacts/x"}]
    spec = {"baseModel": "s3://models/qwen", "adapters": adapters, "replicas": 0, "resources": {"gpus": 0}}
    metadata = {"name": "coder"}
    team.apply({"apiVersion": "codetune.dev/v1alpha1", "kind": "ModelDeployment", "metadata": metadata, "spec": spec})
    team.wait_for_phase("mdep", "coder", "Stopped")
    told = json.loads(team.get("configmap", "coder-adapters")["data"]["adapters.json"])
    assert told == {"adapters": [{"name": "theirs", "path": "others/adapter", "root": "S3"}]}
    fetch = json.loads(team.get("configmap", "coder-fetch")["data"]["fetch.json"])
    assert fetch["uri"] == "s3://models/qwen"
    egress = team.get("networkpolicy", "coder")["spec"]["egress"]
    assert {"ports": [{"port": server.port, "protocol": "TCP"}]} in egress
    assert {entry["name"]: entry.get("reason") for entry in team.status("mdep", "coder")["adapters"]}["old"] == (
        "AdapterUnsupported"
    )
