"""Repositories behind a real sshd on the loopback: keys, host keys that are known, unknown or changed, scp-like URLs.

The server is Debian's openssh-server. Where it is missing, root gets it with apt-get; others skip these tests.
"""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_trainer.errors import AuthenticationFailed, HostKeyChanged, HostKeyUnknown, SourceUnavailable

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop

Secret = Callable[..., None]
INSTALL = "apt-get install -y --no-install-recommends openssh-server openssh-client"
ADDRESS = "127.0.0.1"


def find_sshd() -> str | None:
    """sshd stands where only root looks for programs."""
    return shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


@pytest.fixture(scope="session")
def sshd() -> str:
    """The server's program."""
    if find_sshd() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(INSTALL.split(), env=environment, capture_output=True, check=False, timeout=100)
    program = find_sshd()
    if program is None or shutil.which("ssh") is None:
        pytest.skip(f"there is no sshd: {INSTALL}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd drops its rights into it and asks for no other place
    return program


def make_key(path: Path, kind: str = "ed25519") -> Path:
    """A key pair without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path


@dataclass
class SshHost:
    """A running sshd."""

    folder: Path
    port: int
    address: str = ADDRESS

    @property
    def name(self) -> str:
        """As it stands in known_hosts."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    @property
    def known(self) -> str:
        """The right line of known_hosts."""
        return self.line(self.folder / "host.pub")

    def line(self, public: Path) -> str:
        """A line of known_hosts that says that a key is this host's."""
        return f"{self.name} {' '.join(public.read_text().split()[:2])}\n"

    def hashed(self) -> str:
        """The right line with its name hashed."""
        path = self.folder / "known_hosts"
        path.write_text(self.known)
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
        assert self.address not in path.read_text()
        return path.read_text()

    def url(self, repository: Path) -> str:
        """Of a repository on it."""
        return f"ssh://{getpass.getuser()}@{self.address}:{self.port}{repository}"


@contextmanager
def run_sshd(
    program: str, folder: Path, user_key: Path, address: str, port: int, *, newest: bool = True
) -> Iterator[SshHost]:
    """A server that lets the owner of a key in; without `newest` it passes no wish for a protocol on to git."""
    folder.mkdir()
    make_key(folder / "host")
    (folder / "authorized").write_text(user_key.with_suffix(".pub").read_text())
    settings = [
        *(f"ListenAddress {address}", f"Port {port}", f"HostKey {folder / 'host'}", "PidFile none"),
        *(f"AuthorizedKeysFile {folder / 'authorized'}", "StrictModes no", "UsePAM no", "PermitRootLogin yes"),
        *("PasswordAuthentication no", "KbdInteractiveAuthentication no"),
        *(["AcceptEnv GIT_PROTOCOL"] if newest else []),
    ]
    (folder / "sshd_config").write_text("\n".join(settings) + "\n")
    command = [program, "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            wait_for_port(process, address, port, folder / "log")
            yield SshHost(folder, port, address)
        finally:
            process.terminate()


def wait_for_port(process: subprocess.Popen[bytes], address: str, port: int, log: Path) -> None:
    """Until the server answers."""
    for _ in range(200):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"sshd does not start: {log.read_text()}")


def find_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def user_key(tmp_path: Path) -> Path:
    """A deploy key."""
    (tmp_path / "keys").mkdir()
    return make_key(tmp_path / "keys" / "deploy")


@pytest.fixture
def host(sshd: str, tmp_path: Path, user_key: Path) -> Iterator[SshHost]:
    """A server on a port of its own."""
    with run_sshd(sshd, tmp_path / "sshd", user_key, ADDRESS, find_port()) as running:
        yield running


@pytest.fixture
def repository(workshop: "Workshop") -> Path:
    """A repository on the server."""
    made = workshop.repository()
    made.commit({"a.py": workshop.code("a")})
    made.git("config", "uploadpack.allowFilter", "true")
    return made.folder


def source(url: str) -> dict[str, Any]:
    return {"name": "repo", "git": {"url": url}, "credentialsSecretRef": {"name": "secret"}}


@pytest.mark.parametrize("form", ["plain", "hashed", "with-comments", "windows-line-breaks"])
def test_a_deploy_key_opens_a_repository_of_a_known_host(
    workshop: "Workshop", host: SshHost, repository: Path, user_key: Path, write_secret: Secret, form: str
) -> None:
    known = {
        "plain": host.known,
        "hashed": host.hashed(),
        "with-comments": f"# team\n\n@cert-authority *.example.com ssh-ed25519 AAAA\n{host.known}",
        "windows-line-breaks": host.known.replace("\n", "\r\n"),
    }[form]
    key = user_key.read_text()
    write_secret("repo", **{"ssh-privatekey": key.rstrip("\n") if form == "plain" else key, "known_hosts": known})
    scanned = workshop.scan(source(host.url(repository)))
    assert list(scanned.files) == ["repo/a.py"]
    written = b"".join(path.read_bytes() for path in workshop.places.store.rglob("*") if path.is_file())
    assert key.splitlines()[2].encode() not in written


def test_an_scp_like_url_means_the_usual_port(
    workshop: "Workshop", sshd: str, tmp_path: Path, repository: Path, user_key: Path, write_secret: Secret
) -> None:
    address = "127.0.7.22"
    with socket.socket() as probe:
        try:
            probe.bind((address, 22))
        except OSError as error:
            pytest.skip(f"port 22 of {address} can't be listened on: {error.strerror}")
    with run_sshd(sshd, tmp_path / "sshd", user_key, address, 22) as host:
        write_secret("repo", **{"ssh-privatekey": user_key.read_text(), "known_hosts": host.known})
        scanned = workshop.scan(source(f"{getpass.getuser()}@{address}:{repository}"))
    assert list(scanned.files) == ["repo/a.py"]


@pytest.mark.parametrize("form", ["empty", "another-host", "another-port", "usual-port"])
def test_a_host_that_is_not_known_is_refused_with_the_command_that_shows_its_key(
    workshop: "Workshop", host: SshHost, repository: Path, user_key: Path, write_secret: Secret, form: str
) -> None:
    key = host.known.split(" ", 1)[1]
    known = {
        "empty": "",
        "another-host": f"git.example.com {key}",
        "another-port": f"[{ADDRESS}]:1 {key}",
        "usual-port": f"git.example.com,127.0.0.9 {key}",
    }[form]
    write_secret("repo", **{"ssh-privatekey": user_key.read_text(), "known_hosts": known})
    with pytest.raises(HostKeyUnknown) as failure:
        workshop.scan(source(host.url(repository)))
    assert f"no key of {ADDRESS}:{host.port}" in failure.value.message
    assert f"ssh-keyscan -p {host.port} {ADDRESS}" in failure.value.hint


def test_a_secret_without_known_hosts_is_told_before_anything_is_asked(
    workshop: "Workshop", write_secret: Secret
) -> None:
    write_secret("repo", **{"ssh-privatekey": "k"})
    with pytest.raises(HostKeyUnknown) as failure:
        workshop.scan(source("git@git.example.com:a/b"))
    assert "has no `known_hosts`" in failure.value.message
    assert "ssh-keyscan git.example.com" in failure.value.hint


@pytest.mark.parametrize("form", ["another-key", "revoked"])
def test_a_host_with_another_key_is_refused_and_its_key_is_told(
    workshop: "Workshop", host: SshHost, repository: Path, user_key: Path, write_secret: Secret, form: str
) -> None:
    other = make_key(host.folder / "other").with_suffix(".pub")
    known = host.line(other) if form == "another-key" else f"@revoked {host.known}"
    write_secret("repo", **{"ssh-privatekey": user_key.read_text(), "known_hosts": known})
    with pytest.raises(HostKeyChanged) as failure:
        workshop.scan(source(host.url(repository)))
    assert f"{ADDRESS}:{host.port} shows a key" in failure.value.message
    assert "somebody stands between" in failure.value.hint
    if form == "another-key":
        shown = subprocess.run(
            ["ssh-keygen", "-l", "-f", str(host.folder / "host.pub")], capture_output=True, check=True
        )
        assert shown.stdout.decode().split()[1] in failure.value.message


def test_a_host_whose_key_changed_since_leaves_what_was_fetched(
    workshop: "Workshop", host: SshHost, repository: Path, user_key: Path, write_secret: Secret
) -> None:
    write_secret("repo", **{"ssh-privatekey": user_key.read_text(), "known_hosts": host.known})
    before = workshop.scan(source(host.url(repository)))
    other = make_key(host.folder / "other").with_suffix(".pub")
    (workshop.root / "credentials" / "repo" / "known_hosts").write_text(host.line(other))
    after = workshop.scan(source(host.url(repository)))
    assert after.result.revision == before.result.revision
    assert after.result.sources[0].reason == "HostKeyChanged"
    assert "ssh-keyscan" in after.result.sources[0].message


def test_a_key_that_the_server_does_not_know_is_refused(
    workshop: "Workshop", host: SshHost, repository: Path, user_key: Path, write_secret: Secret
) -> None:
    stranger = make_key(user_key.with_name("stranger"))
    write_secret("repo", **{"ssh-privatekey": stranger.read_text(), "known_hosts": host.known})
    with pytest.raises(AuthenticationFailed) as failure:
        workshop.scan(source(host.url(repository)))
    assert "Permission denied" in failure.value.message


def test_the_keys_of_the_machine_are_not_tried(
    workshop: "Workshop",
    host: SshHost,
    repository: Path,
    user_key: Path,
    write_secret: Secret,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    shutil.copy(user_key, tmp_path / "home" / ".ssh" / "id_ed25519")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    stranger = make_key(user_key.with_name("stranger"))
    write_secret("repo", **{"ssh-privatekey": stranger.read_text(), "known_hosts": host.known})
    with pytest.raises(AuthenticationFailed):
        workshop.scan(source(host.url(repository)))


def test_a_repository_that_the_server_does_not_have_is_unavailable(
    workshop: "Workshop", host: SshHost, repository: Path, user_key: Path, write_secret: Secret
) -> None:
    write_secret("repo", **{"ssh-privatekey": user_key.read_text(), "known_hosts": host.known})
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan(source(host.url(repository.with_name("missing"))))
    assert "does not appear to be a git repository" in failure.value.message


@pytest.mark.parametrize("newest", [True, False], ids=["newest-protocol", "first-protocol"])
def test_a_folder_of_a_repository_comes_by_ssh_too(
    workshop: "Workshop", sshd: str, tmp_path: Path, user_key: Path, write_secret: Secret, newest: bool
) -> None:
    repository = workshop.repository()
    repository.commit({"shop/b.py": workshop.code("b"), "other/c.py": workshop.code("c")})
    repository.git("config", "uploadpack.allowFilter", "true")
    with run_sshd(sshd, tmp_path / "sshd", user_key, ADDRESS, find_port(), newest=newest) as host:
        write_secret("repo", **{"ssh-privatekey": user_key.read_text(), "known_hosts": host.known})
        asked = source(host.url(repository.folder))
        asked["git"]["path"] = "shop"
        assert list(workshop.scan(asked).files) == ["repo/b.py"]
    (mirror,) = (workshop.places.store / "team/projects/code/sources").glob("git-*.git")
    outside = repository.git("rev-parse", "HEAD:other/c.py")
    # The first protocol gives no single objects, so everything comes.
    there = subprocess.run(["git", f"--git-dir={mirror}", "cat-file", "-e", outside], check=False, capture_output=True)
    assert (there.returncode == 0) is not newest
