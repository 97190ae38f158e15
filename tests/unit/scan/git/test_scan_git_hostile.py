"""Repositories and servers that mean harm: nothing outside the store changes, and a person is told what was refused.

URLs are in test_scan_git_urls.py, redirects in test_scan_git_https.py, `.gitmodules` in test_scan_git_submodules.py.
"""

import hashlib
import resource
import struct
import subprocess
import zlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.project import GitSource, Source
from codetune_trainer.errors import SourceError, SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.git import objects
from codetune_trainer.scan.git.fetching import fetch_git

if TYPE_CHECKING:
    from unit.scan.conftest import Listen, Repository, Workshop
    from unit.scan.git.conftest import GitSite

pytestmark = pytest.mark.usefixtures("sentinel")
CODE = b"a = 1\n"


def write_tree(repository: "Repository", *entries: tuple[str, bytes, str]) -> str:
    """Store a tree of (mode, name, object) as it is, whatever git thinks of it; returns its name."""
    content = b"".join(f"{mode} ".encode() + name + b"\0" + bytes.fromhex(identity) for mode, name, identity in entries)
    return repository.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", data=content)


def commit(repository: "Repository", tree: str) -> None:
    made = repository.git("commit-tree", tree, "-m", "made by hand")
    repository.git("update-ref", "refs/heads/main", made)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        pytest.param("../evil.py", [b"..", b"evil.py"], id="above"),
        pytest.param("./evil.py", [b".", b"evil.py"], id="here"),
        pytest.param("a/../../evil.py", [b"a/../../evil.py"], id="above-in-one-name"),
        pytest.param("/etc/evil.py", [b"/etc/evil.py"], id="absolute"),
        pytest.param("a\\..\\..\\evil.py", [b"a\\..\\..\\evil.py"], id="above-on-windows"),
        pytest.param(".git/hooks/evil.py", [b".git", b"hooks", b"evil.py"], id="git-folder"),
        pytest.param("a/.GIT/evil.py", [b"a", b".GIT", b"evil.py"], id="git-folder-in-capitals"),
        pytest.param("git~1/evil.py", [b"git~1", b"evil.py"], id="git-folder-by-its-short-name"),
        pytest.param("GIT~2/evil.py", [b"GIT~2", b"evil.py"], id="short-name-in-capitals"),
        pytest.param(".git. ./evil.py", [b".git. .", b"evil.py"], id="git-folder-with-dots-and-blanks"),
        pytest.param(".git::$INDEX_ALLOCATION/evil.py", [b".git::$INDEX_ALLOCATION", b"evil.py"], id="ntfs-stream"),
        pytest.param(".g\u200cit/evil.py", [b".g\xe2\x80\x8cit", b"evil.py"], id="git-folder-on-macos"),
    ],
)
def test_a_path_that_no_work_tree_may_have_is_listed_and_not_read(
    workshop: "Workshop", site: "GitSite", path: str, names: list[bytes]
) -> None:
    repository = workshop.repository()
    identity, mode = repository.blob(CODE), "100644"
    for name in reversed(names):
        identity, mode = write_tree(repository, (mode, name, identity)), "40000"
    good = repository.blob(b"good = 1\n")
    commit(repository, write_tree(repository, ("100644", b"good.py", good), (mode, b"z", identity)))
    scanned = workshop.scan(site.source())
    assert scanned.verdicts() == {"good.py": "train", f"z/{path}": "Unreadable"}
    assert "no work tree may have" in scanned.report[f"repo/z/{path}"]["detail"]


@pytest.mark.parametrize(
    "name",
    [b".gitignore", b".github", b"git~x", b"digit.py", b"..py", b"a..b", b".git.py", b"git~1.py", b"legit~1"],
)
def test_a_harmless_name_is_taken(workshop: "Workshop", site: "GitSite", name: bytes) -> None:
    repository = workshop.repository()
    repository.commit_tree(("100644", repository.blob(CODE), name), ("100644", repository.blob(b"b = 1\n"), b"z.py"))
    assert workshop.scan(site.source()).verdicts()[name.decode()] != "Unreadable"


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        pytest.param("a\nevent=result.py", b"a\nevent=result.py", id="line-break"),
        pytest.param("\x1b]0;x\x07.py", b"\x1b]0;x\x07.py", id="terminal-title"),
        pytest.param("bad\\xff\\xfe.py", b"bad\xff\xfe.py", id="invalid-utf-8"),
        pytest.param("\\xed\\xa0\\x80.py", b"\xed\xa0\x80.py", id="surrogate"),
        pytest.param("-.py", b"-.py", id="option"),
        pytest.param("HEAD:a.py", b"HEAD:a.py", id="revision"),
        pytest.param(":(glob)*.py", b":(glob)*.py", id="pathspec"),
    ],
)
def test_names_are_data_in_every_part_of_a_scan(workshop: "Workshop", site: "GitSite", shown: str, name: bytes) -> None:
    repository = workshop.repository()
    repository.commit_tree(("100644", repository.blob(CODE), name))
    assert list(workshop.scan(site.source(submodules=True, lfs=True)).files) == [f"repo/{shown}"]


def test_links_that_go_round_in_circles_are_listed(workshop: "Workshop", site: "GitSite") -> None:
    repository = workshop.repository()
    (repository.folder / "a").mkdir()
    for link, target in (("a/up", ".."), ("a/self", "self"), ("round", "a/up/round"), ("out", "/etc")):
        (repository.folder / link).symlink_to(target)
    repository.commit({"a.py": workshop.code("a")})
    scanned = workshop.scan(site.source())
    assert [path for path, verdict in scanned.verdicts().items() if verdict == "Unreadable"] == [
        "a/self",
        "a/up",
        "out",
        "round",
    ]


@pytest.mark.parametrize("path", ["a/up", "out"])
def test_a_path_does_not_lead_through_a_link(workshop: "Workshop", site: "GitSite", path: str) -> None:
    repository = workshop.repository()
    repository.commit({"a/a.py": workshop.code("a")})
    (repository.folder / "a" / "up").symlink_to("..")
    (repository.folder / "out").symlink_to("/etc")
    repository.commit({})
    with pytest.raises(SourceError) as failure:
        workshop.scan(site.source(path=path))
    assert failure.value.reason == "PathNotFound"


def test_a_small_repository_with_more_files_than_atoms_is_refused(
    workshop: "Workshop", site: "GitSite", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "MOST_ENTRIES", 10_000)
    repository = workshop.repository()
    tree, mode = repository.blob(CODE), "100644"
    for _ in range(60):  # each holds the one before ten times over: 10 ** 60 files
        tree, mode = write_tree(repository, *((mode, f"d{n}".encode(), tree) for n in range(10))), "40000"
    commit(repository, tree)
    with pytest.raises(UnsupportedSource) as failure:
        workshop.scan(site.source())
    assert "more than 10000 files" in failure.value.message
    assert "git.path" in failure.value.hint


def test_a_folder_of_a_repository_that_is_too_large_can_be_scanned(
    workshop: "Workshop", site: "GitSite", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "MOST_ENTRIES", 10)
    repository = workshop.repository()
    repository.commit({f"wide/{number}.py": workshop.code(f"f{number}") for number in range(20)})
    repository.commit({"shop/a.py": workshop.code("a")})
    assert list(workshop.scan(site.source(path="shop")).files) == ["repo/a.py"]


def test_a_path_without_an_end_is_cut_in_the_list(workshop: "Workshop", site: "GitSite") -> None:
    write_deep_repository(workshop.root / "files" / "deep", 3000)
    scanned = workshop.scan(site.source("deep"))
    (long,) = (path for path, verdict in scanned.verdicts().items() if verdict == "Unreadable")
    assert scanned.verdicts() == {"b.py": "train", long: "Unreadable"}
    assert len(long) < 300
    assert "a path of 6006 bytes, more than 4096" in scanned.report[f"repo/{long}"]["detail"]


def test_folders_deeper_than_git_itself_can_go_are_a_failure_of_their_source_only(
    workshop: "Workshop", site: "GitSite"
) -> None:
    write_deep_repository(workshop.root / "files" / "deep", 20_000)
    workshop.repository().commit({"a.py": workshop.code("a")})
    before = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (2**20, before[1]))  # with the usual 8 MiB it takes a slow 120,000
    try:
        scanned = workshop.scan(site.source("deep", "deep"), site.source())
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, before)
    assert list(scanned.files) == ["repo/a.py"]
    assert scanned.result.sources[0].reason in {"SourceUnavailable", "UnsupportedSource"}
    assert scanned.result.sources[1].reason == ""


def write_deep_repository(folder: Path, depth: int) -> None:
    """A file below folders in folders; as a pack, since no other way is as quick."""
    objects: list[tuple[int, bytes]] = []

    def add(kind: str, data: bytes) -> bytes:
        objects.append(({"commit": 1, "tree": 2, "blob": 3}[kind], data))
        return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).digest()

    blob = add("blob", CODE)
    tree = add("tree", b"100644 a.py\0" + blob)
    for _ in range(depth):
        tree = add("tree", b"40000 d\0" + tree)
    top = add("tree", b"100644 b.py\0" + add("blob", b"b = 1\n") + b"40000 d\0" + tree)
    who = b"t <t> 1 +0000"
    head = add("commit", b"tree " + top.hex().encode() + b"\nauthor " + who + b"\ncommitter " + who + b"\n\ndeep\n")
    pack = b"PACK" + struct.pack(">II", 2, len(objects)) + b"".join(_pack(kind, data) for kind, data in objects)
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(folder)], check=True)
    command = ["git", "-C", str(folder), "index-pack", "--stdin"]
    subprocess.run(command, input=pack + hashlib.sha1(pack).digest(), check=True, capture_output=True)
    (folder / "refs" / "heads" / "main").write_text(f"{head.hex()}\n")


def _pack(kind: int, data: bytes) -> bytes:
    size, head = len(data), []
    first, size = (kind << 4) | (size & 15), size >> 4
    while size:
        head.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    return bytes([*head, first]) + zlib.compress(data, 1)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("ext::sh -c touch% PROOF", id="ext"),
        pytest.param("fd::7", id="fd"),
        pytest.param("--upload-pack=touch PROOF", id="option"),
        pytest.param("-oProxyCommand=touch PROOF@host:x", id="ssh-option"),
        pytest.param("git@host:x --upload-pack=touch", id="option-after-a-blank"),
        pytest.param("ssh://-oProxyCommand=touch%20PROOF/x", id="ssh-option-as-host"),
        pytest.param("https://127.0.0.1/x\n[core]sshCommand=touch", id="settings"),
        pytest.param("file:///../outside", id="file-outside"),
        pytest.param("file:///%2e%2e/outside", id="file-outside-quoted"),
        pytest.param("/etc", id="plain-path"),
    ],
)
def test_a_url_that_got_past_the_api_server_is_refused_too(workshop: "Workshop", url: str) -> None:
    proof = workshop.root / "proof"
    git = GitSource.model_construct(url=url.replace("PROOF", str(proof)), revision=None)
    source = Source.model_construct(name="repo", git=git, credentials_secret_ref=None)
    cache = workshop.places.store / "cache"
    with pytest.raises(UnsupportedSource):
        fetch_git(source, git, cache, workshop.places, lambda found: True)
    assert not proof.exists()
    assert not cache.exists()


@pytest.mark.parametrize("revision", ["--upload-pack=touch", "refs/heads/main:refs/heads/x", "+main", "*", "a b", "^x"])
def test_a_revision_that_is_no_name_is_not_found(workshop: "Workshop", site: "GitSite", revision: str) -> None:
    workshop.repository().commit({"a.py": workshop.code("a")})
    git = GitSource.model_construct(url=f"{site.url}/repo/.git", revision=revision)
    source = Source.model_construct(name="repo", git=git, credentials_secret_ref=None)
    with pytest.raises(SourceError) as failure:
        fetch_git(source, git, workshop.places.store / "cache", workshop.places, lambda found: True)
    assert failure.value.reason in {"RevisionNotFound", "SourceUnavailable"}


ANSWERS = [
    pytest.param(b"<!doctype html><title>Sign in</title>", "text/html", id="a-login-page"),
    pytest.param(b"", "application/x-git-upload-pack-advertisement", id="nothing"),
    pytest.param(b"0000" * 1000, "application/x-git-upload-pack-advertisement", id="ends"),
    pytest.param(b"ffff" + b"x" * 70_000, "application/x-git-upload-pack-advertisement", id="too-long-a-line"),
    pytest.param(
        b"001e# service=git-upload-pack\n0000" + b"0044" + b"../../../evil refs/heads/main\0" + b" " * 34,
        "application/x-git-upload-pack-advertisement",
        id="no-object-name",
    ),
]


@pytest.mark.parametrize(("body", "kind"), ANSWERS)
def test_a_server_that_speaks_something_else_is_unavailable(
    workshop: "Workshop", listen: "Listen", body: bytes, kind: str
) -> None:
    with listen(answer_always(body, kind)) as url, pytest.raises(SourceError) as failure:
        workshop.scan({"name": "repo", "git": {"url": f"{url}/repo.git"}})
    assert failure.value.reason in {"SourceUnavailable", "EmptyRepository"}


def answer_always(body: bytes, kind: str) -> type[BaseHTTPRequestHandler]:
    """What gives one answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the test's output is not for it."""

    return Handler


@pytest.mark.parametrize("damage", ["cut-pack", "noise-in-pack", "no-pack"])
def test_a_mirror_that_is_damaged_is_made_anew(workshop: "Workshop", site: "GitSite", damage: str) -> None:
    workshop.repository().commit({f"f{number}.py": workshop.code(f"f{number}") for number in range(20)})
    workshop.scan(site.source())
    (mirror,) = (workshop.places.store / "team/projects/code/sources").glob("git-*.git")
    (pack,) = (mirror / "objects" / "pack").glob("*.pack")
    content = bytearray(pack.read_bytes())
    pack.chmod(0o644)
    match damage:
        case "cut-pack":
            pack.write_bytes(content[: len(content) // 2])
        case "noise-in-pack":
            content[20:-20] = b"\xff" * (len(content) - 40)
            pack.write_bytes(content)
        case _:
            pack.unlink()
    assert len(workshop.scan(site.source()).files) == 20


@pytest.mark.parametrize("where", ["source", "submodule"])
def test_a_content_that_is_damaged_in_the_store_comes_anew_with_the_next_attempt(
    workshop: "Workshop", site: "GitSite", where: str
) -> None:
    noise = "".join(f"x{hashlib.sha256(str(number).encode()).hexdigest()} = {number}\n" for number in range(500))
    lib = workshop.repository("lib")
    commit = lib.commit({"noise.py": noise if where == "submodule" else "a = 1\n"})
    app = workshop.repository("app")
    modules = f'[submodule "lib"]\n\tpath = lib\n\turl = {site.url}/lib/.git\n'
    app.commit({".gitmodules": modules, "noise.py": noise if where == "source" else "b = 1\n"})
    app.git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib")
    app.git("commit", "--quiet", "--message", "module")
    source = site.source("app/.git", "app", submodules=True)
    whole = workshop.scan(source)
    pattern = "git-*.git" if where == "source" else "git-*.modules/app/git-*.git"
    (pack,) = (workshop.places.store / "team/projects/code/sources").glob(f"{pattern}/objects/pack/*.pack")
    content = bytearray(pack.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1000] = bytes(1000)
    pack.chmod(0o644)
    pack.write_bytes(content)
    # Other rules, so that nothing that was judged before is taken as it was.
    other = {"maxLineLength": 900}
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan(source, files=other)
    assert failure.value.exit_code == 1
    assert workshop.scan(source, files=other).result.revision == whole.result.revision


@pytest.mark.parametrize(
    ("sentence", "start"),
    [pytest.param("can't be fetched", 20, id="the-commit"), pytest.param("is damaged", 200, id="its-tree")],
)
def test_a_damaged_mirror_of_a_server_that_is_away_is_a_failure_of_its_source(
    workshop: "Workshop", site: "GitSite", sentence: str, start: int
) -> None:
    workshop.repository("other").commit({"b.py": workshop.code("b")})
    repository = workshop.repository()
    repository.commit({f"f{number}.py": workshop.code(f"f{number}") for number in range(20)})
    sources = [site.source(), workshop.from_git("other")]
    workshop.scan(*sources)
    (repository.folder / ".git").rename(repository.folder / "away")
    for mirror in (workshop.places.store / "team/projects/code/sources").glob("git-*.git"):
        for pack in mirror.glob("objects/pack/*.pack"):
            pack.chmod(0o644)
            content = bytearray(pack.read_bytes())
            content[start:-20] = b"\xff" * (len(content) - start - 20)  # the commit is in front
            pack.write_bytes(content)
    scanned = workshop.scan(*sources)
    assert [source.reason for source in scanned.result.sources] == ["SourceUnavailable", ""]
    assert sentence in scanned.result.sources[0].message
    assert list(scanned.files) == ["other/b.py"]
    (repository.folder / "away").rename(repository.folder / ".git")
    assert len(workshop.scan(*sources).files) == 21
