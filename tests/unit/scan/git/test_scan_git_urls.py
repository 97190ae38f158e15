"""Which URLs git is ever given, and in which world it runs."""

import subprocess
import sys
from pathlib import Path

import pytest
from codetune_trainer.errors import HostUnreachable, SourceError, SourceUnavailable, TrainerError, UnsupportedSource
from codetune_trainer.scan.git import credentials
from codetune_trainer.scan.git.environment import build_environment
from codetune_trainer.scan.git.reading import close_off
from codetune_trainer.scan.git.secrets import Credentials
from codetune_trainer.scan.git.urls import read_url
from codetune_trainer.scan.git.words import explain

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("protocol", "host", "url"),
    [
        pytest.param("https", "https://git.example.com", "https://git.example.com/a/b.git", id="https"),
        pytest.param("http", "http://127.0.0.1:8080", "http://127.0.0.1:8080/a", id="http-with-port"),
        pytest.param("ssh", "ssh://git.example.com:2222", "ssh://git@git.example.com:2222/a/b", id="ssh"),
        pytest.param("ssh", "ssh://git.example.com", "git@git.example.com:a/b.git", id="scp-like"),
    ],
)
def test_a_url_is_taken(protocol: str, host: str, url: str) -> None:
    remote = read_url(url, None)
    assert (remote.protocol, remote.host, remote.url) == (protocol, host, url)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("ext::sh -c 'touch /tmp/x'", id="ext"),
        pytest.param("ext::sh", id="ext-without-blanks"),
        pytest.param("fd::17", id="fd"),
        pytest.param("--upload-pack=touch x", id="option"),
        pytest.param("-oProxyCommand=x@host:path", id="option-that-looks-like-scp"),
        pytest.param("ssh://-oProxyCommand=touch%20x/path", id="option-as-host"),
        pytest.param("ssh://-l@host/path", id="option-as-user"),
        pytest.param("git@-oProxyCommand=x:path", id="option-as-scp-host"),
        pytest.param("git@host:-path", id="option-as-scp-path"),
        pytest.param("https://", id="no-host"),
        pytest.param("https:///path", id="empty-host"),
        pytest.param("https://host", id="no-path"),
        pytest.param("https://host/a b", id="blank"),
        pytest.param("https://host/a\nb", id="line-break"),
        pytest.param("git://host/path", id="git-protocol"),
        pytest.param("ftp://host/path", id="ftp"),
        pytest.param("/etc", id="plain-path"),
        pytest.param("../x", id="relative-path"),
        pytest.param("host:path", id="scp-without-user"),
        pytest.param("", id="empty"),
        pytest.param("file:///etc", id="file-without-root"),
        pytest.param("https://host:99999/path", id="port-too-large"),
        pytest.param("ssh://git@host:22x/path", id="port-that-is-none"),
        pytest.param("https://host:0/path", id="port-0"),
        pytest.param("https://[::1/path", id="half-an-address"),
    ],
)
def test_a_url_is_refused(url: str) -> None:
    with pytest.raises(UnsupportedSource) as failure:
        read_url(url, None)
    assert failure.value.hint


def test_a_url_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(UnsupportedSource) as failure:
        read_url("https://me:hunter2@git.example.com/a/b", None)
    assert "hunter2" not in failure.value.message + failure.value.hint
    assert "credentialsSecretRef" in failure.value.hint


@pytest.mark.parametrize(
    ("error", "url"),
    [
        pytest.param(UnsupportedSource, "file:///../outside", id="dots"),
        pytest.param(UnsupportedSource, "file:///%2e%2e/outside", id="quoted-dots"),
        pytest.param(UnsupportedSource, "file:///a/../../outside", id="dots-inside"),
        pytest.param(UnsupportedSource, "file:///", id="the-root-itself"),
        pytest.param(UnsupportedSource, "file:///link", id="a-link-that-leads-out"),
        pytest.param(SourceUnavailable, "file:///missing", id="missing"),
        pytest.param(SourceUnavailable, f"file:///{'a' * 300}", id="too-long-a-name"),
        pytest.param(SourceUnavailable, "file:///circle", id="links-in-a-circle"),
    ],
)
def test_file_urls_stay_below_their_root(tmp_path: Path, error: type[SourceError], url: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "circle").symlink_to("circle")
    with pytest.raises(error):
        read_url(url, tmp_path / "root")


def test_git_gets_nothing_of_this_machine_but_path_proxy_and_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("SSL_CERT_FILE", "/certs/ca.pem")
    monkeypatch.setenv("GIT_SSH_COMMAND", "evil")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("HF_TOKEN", "secret")
    environment = build_environment(tmp_path / "home", ("https",), "https://h", None)
    assert environment["https_proxy"] == "http://proxy:3128"
    assert environment["SSL_CERT_FILE"] == "/certs/ca.pem"
    assert environment["GIT_ALLOW_PROTOCOL"] == "https"
    assert environment["GIT_TERMINAL_PROMPT"] == "0"
    assert "HF_TOKEN" not in environment
    assert "GIT_CONFIG_COUNT" not in environment
    assert "evil" not in environment["GIT_SSH_COMMAND"]


@pytest.mark.parametrize("url", ["ext::sh -c 'touch PROOF'", "fd::0", "file:///etc"])
def test_git_itself_refuses_other_transports_in_this_world(tmp_path: Path, url: str) -> None:
    environment = dict(build_environment(tmp_path / "home", ("https",), "https://h", None))
    command = ["git", "ls-remote", "--", url.replace("PROOF", str(tmp_path / "proof"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode
    assert "not allowed" in done.stderr
    assert not (tmp_path / "proof").exists()


def test_an_ssh_key_becomes_a_private_file_and_hosts_are_always_checked(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "ssh-privatekey").write_text(KEY)
    (secret / "known_hosts").write_text("host ssh-ed25519 AAAA")
    environment = build_environment(tmp_path / "home", ("ssh",), "ssh://host", Credentials(secret))
    key = tmp_path / "home" / "key"
    assert key.read_text() == KEY + "\n"
    assert key.stat().st_mode & 0o777 == 0o600
    assert "StrictHostKeyChecking=yes" in environment["GIT_SSH_COMMAND"]
    assert f'UserKnownHostsFile="{secret / "known_hosts"}"' in environment["GIT_SSH_COMMAND"]
    assert not any("abc" in value for value in environment.values())


def test_what_reads_a_repository_has_no_credentials_and_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    environment = build_environment(tmp_path / "home", ("https",), "https://h", Credentials(tmp_path))
    assert environment["CODETUNE_GIT_CREDENTIALS"] == str(tmp_path)
    reading = close_off(environment, tmp_path / 'a:b "c".git')
    assert not [name for name in reading if name.startswith("CODETUNE")]
    assert reading["GIT_ALLOW_PROTOCOL"] == "none"
    assert reading["GIT_ALTERNATE_OBJECT_DIRECTORIES"] == f'"{tmp_path}/a:b \\"c\\".git/objects"'


@pytest.mark.parametrize(
    ("same", "one", "other"),
    [
        pytest.param(True, "https://Git.example.com/a", "https://git.example.com:443/b", id="usual-port"),
        pytest.param(True, "ssh://git@h:22/a", "git@h:b", id="scp-like"),
        pytest.param(False, "https://h/a", "http://h/a", id="protocol"),
        pytest.param(False, "https://h/a", "https://h:8443/a", id="port"),
        pytest.param(False, "https://h/a", "https://h.evil.example.com/a", id="longer-name"),
        pytest.param(False, "https://[::1]/a", "https://[::2]/a", id="addresses"),
    ],
)
def test_what_counts_as_the_same_host(same: bool, one: str, other: str) -> None:
    assert (read_url(one, None).origin == read_url(other, None).origin) is same


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        pytest.param("DiskFull", "fatal: write error: No space left on device", id="disk-full"),
        pytest.param("AuthenticationFailed", "fatal: Authentication failed for 'https://h/a/'", id="denied"),
        pytest.param("SourceUnavailable", "ERROR: Repository not found.\nfatal: Could not read", id="github-by-ssh"),
        pytest.param("SourceUnavailable", "fatal: repository 'https://h/a/' does not exist", id="no-repository"),
        pytest.param("RevisionNotFound", "fatal: couldn't find remote ref refs/heads/x", id="no-revision"),
        pytest.param("HostKeyUnknown", "No ED25519 host key is known for h and you have requested", id="unknown-host"),
        pytest.param("HostKeyChanged", "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!", id="changed-host"),
        pytest.param("SourceUnavailable", "ssh: connect to host h port 22: Connection refused", id="refused"),
    ],
)
def test_what_git_says_becomes_a_reason(reason: str, said: str) -> None:
    failure = explain(said, read_url("ssh://git@h/a", None))
    assert isinstance(failure, TrainerError)
    assert (failure.reason, bool(failure.hint)) == (reason, True)


@pytest.mark.parametrize(
    ("unreachable", "said"),
    [
        pytest.param(True, "fatal: unable to access 'https://h/': Could not resolve host: h", id="no-name"),
        pytest.param(True, "fatal: unable to access 'https://h/': Failed to connect to h port 443", id="no-server"),
        pytest.param(True, "ssh: connect to host h port 22: Connection timed out", id="no-ssh-server"),
        pytest.param(False, "fatal: repository 'https://h/a/' does not exist", id="no-repository"),
        pytest.param(False, "error: RPC failed; curl 56 Recv failure: Connection reset by peer", id="broken-off"),
    ],
)
def test_a_host_without_a_connection_is_told_from_one_that_does_not_give_something(
    unreachable: bool, said: str
) -> None:
    assert isinstance(explain(said, read_url("ssh://git@h/a", None)), HostUnreachable) is unreachable


@pytest.mark.parametrize(
    ("expected", "asked"),
    [
        pytest.param("username=me\npassword=pw=1\n", "protocol=https\nhost=git.example.com\n", id="the-source"),
        pytest.param("", "protocol=https\nhost=evil.example.com\n", id="another-host"),
        pytest.param("", "protocol=http\nhost=git.example.com\n", id="without-tls"),
        pytest.param("", "protocol=https\nhost=git.example.com:444\n", id="another-port"),
        pytest.param("", "", id="nothing-asked"),
    ],
)
def test_credentials_go_to_the_sources_own_host_only(tmp_path: Path, expected: str, asked: str) -> None:
    (tmp_path / "username").write_text("me\n")
    (tmp_path / "password").write_text("pw=1\n")
    assert credentials.answer(asked, tmp_path, "https://git.example.com") == expected


@pytest.mark.parametrize("action", ["store", "erase", "get"])
def test_the_helper_says_nothing_when_it_has_nothing_to_say(action: str) -> None:
    command = [sys.executable, "-I", credentials.__file__, action]
    done = subprocess.run(command, input=b"protocol=https\nhost=h\n", env={}, capture_output=True, check=True)
    assert done.stdout == b""
