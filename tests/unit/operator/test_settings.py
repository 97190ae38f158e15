"""The settings file: what it may hold, and that all its mistakes are told at once."""

from pathlib import Path

import pytest
from codetune_operator.errors import SettingsError
from codetune_operator.settings import Settings, load_settings, parse_settings

FULL = """
namespace: tools
namespaces: [team-a, team-b]
images: {trainer: registry.example/codetune-trainer:1, pullPolicy: Always, pullSecrets: [registry.example]}
store: {bucket: s3://bucket/prefix/, storageClassName: fast, size: 1Ti, accessMode: ReadWriteOnce}
s3: {endpoint: https://s3.example, region: eu-1, credentialsSecretName: s3.keys, caConfigMapName: ca,
     serviceAccountName: run}
hub: {endpoint: https://hub.example}
endpoint: ClusterIP
networkPolicy: {egressPorts: [9000]}
fileRoot: /srv/files
scanResources: {gpus: 0, cpu: "2", memory: 4Gi}
logFormat: json
"""


def test_every_setting_is_read() -> None:
    settings = parse_settings(FULL)

    assert settings.namespace == "tools"
    assert settings.namespaces == ["team-a", "team-b"]
    assert settings.images.trainer == "registry.example/codetune-trainer:1"
    assert settings.images.server_cpu.startswith("codetune-server-cpu:")
    assert (settings.images.pull_policy, settings.images.pull_secrets) == ("Always", ["registry.example"])
    assert (settings.store.storage_class_name, settings.store.size) == ("fast", "1Ti")
    assert settings.store.access_mode == "ReadWriteOnce"
    assert (settings.store.bucket, settings.store.uri) == ("s3://bucket/prefix/", "s3://bucket/prefix")
    assert settings.s3 is not None
    assert (settings.s3.endpoint, settings.s3.region) == ("https://s3.example", "eu-1")
    assert (settings.s3.credentials_secret_name, settings.s3.ca_config_map_name) == ("s3.keys", "ca")
    assert settings.s3.service_account_name == "run"
    assert settings.hub.endpoint == "https://hub.example"
    assert (settings.endpoint, settings.file_root, settings.log_format) == ("ClusterIP", "/srv/files", "json")
    assert settings.scan_resources.memory == "4Gi"
    assert settings.network_policy.egress_ports == [9000]


@pytest.mark.parametrize("text", [pytest.param("", id="empty"), pytest.param("{}", id="no keys")])
def test_a_file_without_settings_gives_the_defaults(text: str) -> None:
    assert parse_settings(text) == Settings()


MISTAKES = [
    pytest.param(["imagez"], "imagez: {}", id="unknown key"),
    pytest.param(["store.size", "'lots'"], "store: {size: lots}", id="no quantity"),
    pytest.param(["endpoint", "'Name'"], "endpoint: Name", id="no such choice"),
    pytest.param(["fileRoot", "'files'"], "fileRoot: files", id="relative root"),
    pytest.param(["store.size", "hub.endpoint"], "{store: {size: x}, hub: {endpoint: ftp://x}}", id="all at once"),
    pytest.param(["networkPolicy.egressPorts.0", "65536"], "networkPolicy: {egressPorts: [65536]}", id="no port"),
    pytest.param(["store.bucket", "https"], "{store: {bucket: https://b}, s3: {}}", id="no bucket"),
    pytest.param(["store.bucket needs s3"], "store: {bucket: s3://bucket}", id="a bucket out of reach"),
    pytest.param(["mapping", "list"], "[a]", id="a list"),
    pytest.param(["not YAML"], "a: [", id="no YAML"),
]


@pytest.mark.parametrize(("expected", "text"), MISTAKES)
def test_mistakes_are_named(expected: list[str], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text)

    assert all(words in str(caught.value) for words in expected)


def test_the_file_is_named_with_its_mistakes(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("imagez: 1")

    with pytest.raises(SettingsError, match=r"settings.yaml has mistakes:\n  imagez"):
        load_settings(tmp_path / "settings.yaml")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml can't be read"):
        load_settings(tmp_path / "none.yaml")
