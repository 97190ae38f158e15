"""Real git repositories and real scans in a temporary store: what the tests of the scan stand on."""

import datetime
import io
import json
import os
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from codetune_api.contracts import ScanConfig, ScanResult
from codetune_trainer.config import Places
from codetune_trainer.reporting import Reporter
from codetune_trainer.scan.recipe import scan
from codetune_trainer.scan.rules.judge import Judge
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NONCE = "nonce-of-this-test-0001"
SENTINEL = "content-that-no-scan-may-read"


@dataclass
class Repository:
    """A git repository that a test fills."""

    folder: Path

    def git(self, *arguments: str, data: bytes | None = None) -> str:
        """git's output."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder.parent),
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
            **{f"GIT_{who}_DATE": "2026-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")},
        }
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments], env=environment, input=data, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    def commit(self, files: Mapping[Any, str | bytes], message: str = "more") -> str:
        """Write files and commit them; returns the commit."""
        for name, content in files.items():
            path = Path(os.fsdecode(os.path.join(os.fsencode(self.folder), os.fsencode(name))))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def commit_modules(
        self, links: Mapping[str, tuple[str, str]], files: Mapping[str, str | bytes] | None = None
    ) -> str:
        """Commit submodules (path → URL, commit) beside files; returns the commit."""
        text = "".join(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n' for path, (url, _) in links.items())
        self.commit({".gitmodules": text, **(files or {})})
        for path, (_, commit) in links.items():
            self.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
        self.git("commit", "--quiet", "--message", "modules")
        return self.git("rev-parse", "HEAD")

    def commit_tree(self, *entries: tuple[str, str, bytes]) -> str:
        """Commit a tree that no work tree could hold: entries of (mode, object, name)."""
        lines = b"".join(
            f"{mode} {_kind(mode)} {identity}\t".encode() + name + b"\0" for mode, identity, name in entries
        )
        tree = self.git("mktree", "-z", "--missing", data=lines)
        commit = self.git("commit-tree", tree, "-m", "made by hand")
        self.git("update-ref", "refs/heads/main", commit)
        return commit

    def blob(self, content: bytes) -> str:
        """Store a blob; returns its name."""
        return self.git("hash-object", "-w", "--stdin", data=content)


def _kind(mode: str) -> str:
    return {"160000": "commit", "040000": "tree"}.get(mode, "blob")


@dataclass
class Workshop:
    """A store, a file root and volumes for scans."""

    root: Path
    events: io.StringIO = field(default_factory=io.StringIO)
    model: Path | None = None
    """Folder of the model of `files.quality`."""

    @property
    def places(self) -> Places:
        """The folders that a pod would be given."""
        return Places(
            store=self.root / "store",
            scratch=self.root / "scratch",
            credentials=self.root / "credentials",
            volumes=self.root / "volumes",
            file_root=self.root / "files",
            model=self.model,
        )

    @staticmethod
    def code(name: str) -> str:
        """Python text that no other name gives."""
        return f"def {name}(a, b):\n    return a + b\n"

    @staticmethod
    def from_git(name: str, **fields: Any) -> dict[str, Any]:
        """A source whose repository has the source's name."""
        return {"name": name, "git": {"url": f"file:///{name}", **fields}}

    @staticmethod
    def from_volume(name: str, path: str = "") -> dict[str, Any]:
        """A source on the volume of that name."""
        return {"name": name, "volume": {"claimName": "claim", "path": path}}

    def repository(self, name: str = "repo", object_format: str = "sha1") -> Repository:
        """A new empty repository that `file:///NAME` names."""
        folder = self.root / "files" / name
        folder.mkdir(parents=True)
        made = Repository(folder)
        made.git("init", "--quiet", "--initial-branch=main", f"--object-format={object_format}")
        return made

    def volume(self, name: str, files: Mapping[str, str | bytes]) -> Path:
        """A mounted volume of the source of that name."""
        folder = self.root / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    def config(self, *sources: Mapping[str, Any], **rules: Any) -> ScanConfig:
        """A scan's configuration; without sources: the repository `repo`."""
        listed = list(sources) or [self.from_git("repo")]
        return ScanConfig.model_validate(
            {
                "nonce": NONCE,
                "namespace": "team",
                "name": "code",
                "sources": listed,
                "files": {},
                "holdout": {"fraction": 0},
                "output": "team/projects/code",
                "cache": "team/projects/code/sources",
                **rules,
            }
        )

    def scan(self, *sources: Mapping[str, Any], workers: int | None = None, **rules: Any) -> "Scanned":
        """Scan and read back what was written."""
        result = scan(self.config(*sources, **rules), self.places, Reporter(NONCE, self.events), workers)
        return Scanned(result, self.root / "store" / result.uri)


@dataclass
class Scanned:
    """A dataset as it lies in the store."""

    result: ScanResult
    folder: Path

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Accepted files by path."""
        return {row["path"]: row for row in read_lines(self.folder / "files.jsonl")}

    @property
    def report(self) -> dict[str, dict[str, Any]]:
        """Every file by path."""
        return {row["path"]: row for row in read_lines(self.folder / "report.jsonl")}

    def verdicts(self) -> dict[str, str]:
        """Path inside its source → why it is not simply in the dataset, or the side where it is."""
        told = {path: "" if row["reason"] == "HeldOut" else row["reason"] for path, row in self.report.items()}
        return {path.partition("/")[2]: told[path] or row["decision"] for path, row in self.report.items()}


def photograph(folder: Path) -> dict[bytes, tuple[int, ...] | bytes]:
    """What every name below a folder is: kind, mode, size and time of its last change; of a link, where it leads."""
    seen: dict[bytes, tuple[int, ...] | bytes] = {}
    for place, folders, files in os.walk(os.fsencode(folder)):
        for path in (os.path.join(place, name) for name in [*folders, *files]):
            found = os.lstat(path)
            seen[path] = (
                os.readlink(path) if stat.S_ISLNK(found.st_mode) else (found.st_mode, found.st_size, found.st_mtime_ns)
            )
    return seen


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A store, a file root and volumes of their own."""
    for name in ("store", "scratch", "credentials", "volumes", "files"):
        (tmp_path / name).mkdir()
    return Workshop(tmp_path)


@pytest.fixture
def outside(workshop: Workshop) -> Iterator[Path]:
    """A folder beside the workshop's own, with what nobody may read, change or add to; seen by the test's end."""
    folder = workshop.root / "outside"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "secret.py").write_text(f"password = {SENTINEL!r}\n")
    (folder / "run.sh").write_text("#!/bin/sh\ntouch ran\n")
    (folder / "run.sh").chmod(0o755)
    before = photograph(folder)
    yield folder
    assert photograph(folder) == before
    for path in (workshop.root / "store").rglob("*"):
        assert path.is_dir() or SENTINEL.encode() not in path.read_bytes()


@pytest.fixture
def scan_disk(workshop: Workshop, outside: Path) -> Callable[..., Scanned]:
    """Scan the volume `disk`; nothing but the store and the scratch folder may be another afterwards."""

    def run(**rules: Any) -> Scanned:
        own = ("store", "scratch")
        places = [path for path in workshop.root.iterdir() if path.name not in own]
        before = [photograph(path) for path in places]
        scanned = workshop.scan(workshop.from_volume("disk"), workers=1, **rules)
        assert [photograph(path) for path in places] == before
        assert {path.name for path in workshop.root.iterdir()} == {*own, *(path.name for path in places)}
        return scanned

    return run


@pytest.fixture
def scan_one(workshop: Workshop) -> Callable[..., Scanned]:
    """Scan files that lie on a volume."""

    def run(found: Mapping[str, str | bytes], /, workers: int | None = None, **rules: Any) -> Scanned:
        workshop.volume("disk", found)
        return workshop.scan(workshop.from_volume("disk"), workers=workers, **rules)

    return run


@pytest.fixture
def write_secret(tmp_path: Path) -> Callable[..., None]:
    """Mount a Secret for a source, as the kubelet does: links into a folder beside."""

    def write(source: str = "app", /, **keys: str) -> None:
        folder = tmp_path / "credentials" / source
        hidden = folder / "..data"
        hidden.mkdir(parents=True)
        for name, value in keys.items():
            (hidden / name).write_text(value)
            (folder / name).symlink_to(Path("..data") / name)

    return write


class QuietServer(ThreadingHTTPServer):
    """Says nothing about clients that were killed or left early."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


Listen = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def listen() -> Listen:
    """Runs a web server on the loopback while its context lasts; gives its URL."""

    @contextmanager
    def run(
        handler: type[BaseHTTPRequestHandler], host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> Iterator[str]:
        with QuietServer((host, 0), handler) as running:
            if tls is not None:
                running.socket = tls.wrap_socket(running.socket, server_side=True)
            thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield f"{'https' if tls else 'http'}://{host}:{running.server_address[1]}"
            finally:
                running.shutdown()
                thread.join()

    return run


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> "Authority":
    """A certificate authority that nobody else knows."""
    return Authority(tmp_path_factory.mktemp("authority"))


class Authority:
    """Makes one certificate for 127.0.0.1.

    Args:
        folder: Where its files go.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root.pem"
        self._both = folder / "server.pem"
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root = self._sign("Test root", root_key, "Test root", root_key, is_root=True)
        leaf = self._sign("Test root", root_key, "127.0.0.1", key, is_root=False)
        self.root.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        self._both.write_bytes(private + leaf.public_bytes(serialization.Encoding.PEM))

    def context(self) -> ssl.SSLContext:
        """What a server needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._both)
        return context

    @staticmethod
    def _sign(
        issuer: str,
        issuer_key: ec.EllipticCurvePrivateKey,
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        *,
        is_root: bool,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        if not is_root:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(issuer_key, hashes.SHA256())


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all files that are judged, as it happens."""
    paths: list[str] = []
    original = Judge.judge

    def note(self: Judge, origin: Any, found: Any, content: bytes | None) -> Any:
        paths.append(found.path)
        return original(self, origin, found, content)

    monkeypatch.setattr(Judge, "judge", note)
    return paths
