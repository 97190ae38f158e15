"""Sources that mean harm: nothing outside the store is read or written, and each file gets a clear reason."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_trainer.errors import SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.sources.volumes import read_file

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop

SECRET = "root-secret-content"


@pytest.mark.parametrize(
    ("target", "mode"),
    [
        pytest.param(b"/etc/passwd", "120000", id="absolute-link"),
        pytest.param(b"../../../../etc/passwd", "120000", id="relative-link"),
        pytest.param(b"a.py", "120000", id="link-inside"),
        pytest.param(b"evil.py", "120000", id="link-to-itself"),
    ],
)
def test_links_in_a_repository_are_listed_and_never_followed(workshop: "Workshop", target: bytes, mode: str) -> None:
    repository = workshop.repository()
    repository.commit_tree(
        ("100644", repository.blob(b"a = 1\n"), b"a.py"), (mode, repository.blob(target), b"evil.py")
    )
    scanned = workshop.scan()
    assert scanned.verdicts() == {"a.py": "train", "evil.py": "Unreadable"}
    assert "symbolic link" in scanned.report["repo/evil.py"]["detail"]


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        pytest.param("new\nline.py", b"new\nline.py", id="line-break"),
        pytest.param("tab\t.py", b"tab\t.py", id="tab"),
        pytest.param("bad\\xff.py", b"bad\xff.py", id="invalid-utf-8"),
        pytest.param('quote".py', b'quote".py', id="quote"),
        pytest.param("-rf.py", b"-rf.py", id="option"),
        pytest.param("event=result nonce=1.py", b"event=result nonce=1.py", id="protocol"),
        pytest.param("\x1b[31mred.py", b"\x1b[31mred.py", id="terminal-colours"),
        pytest.param("\u202egnp.py", "\u202egnp.py".encode(), id="right-to-left"),
        pytest.param("a" * 250 + ".py", b"a" * 250 + b".py", id="very-long"),
        pytest.param("aux.py", b"aux.py", id="windows-device"),
    ],
)
def test_file_names_are_data(workshop: "Workshop", shown: str, name: bytes) -> None:
    repository = workshop.repository()
    repository.commit_tree(("100644", repository.blob(b"a = 1\n"), name))
    scanned = workshop.scan()
    assert list(scanned.files) == [f"repo/{shown}"]
    assert list(scanned.report) == [f"repo/{shown}"]
    assert (scanned.folder / "files.jsonl").read_bytes().count(b"\n") == 1


def test_a_tree_whose_names_climb_out_writes_nothing_outside(workshop: "Workshop") -> None:
    repository = workshop.repository()
    blob = repository.blob(b"a = 1\n")
    inner = repository.git("mktree", "-z", data=f"100644 blob {blob}\tescaped.py\0".encode())
    before = {path for path in workshop.root.rglob("*") if "store" not in path.parts and "files" not in path.parts}
    settings = repository.git("mktree", "-z", data=f"100644 blob {blob}\tconfig\0".encode())
    repository.commit_tree(("100644", blob, b"a.py"), ("040000", inner, b".."), ("040000", settings, b".git"))
    scanned = workshop.scan()
    assert scanned.verdicts() == {"../escaped.py": "Unreadable", ".git/config": "Unreadable", "a.py": "train"}
    after = {path for path in workshop.root.rglob("*") if "store" not in path.parts and "files" not in path.parts}
    assert {path.relative_to(workshop.root).parts[0] for path in after - before} <= {"scratch"}
    assert not list(workshop.root.rglob("escaped.py"))


def test_hooks_and_settings_of_a_repository_do_nothing(workshop: "Workshop") -> None:
    repository = workshop.repository()
    repository.commit({"a.py": workshop.code("a"), ".gitattributes": "* filter=evil diff=evil\n"})
    proof = workshop.root / "proof"
    for key in ("filter.evil.smudge", "uploadpack.packObjectsHook", "core.fsmonitor", "core.sshCommand"):
        repository.git("config", key, f"touch {proof}")
    for hook in ("post-checkout", "reference-transaction", "pre-receive"):
        path = repository.folder / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {proof}\n")
        path.chmod(0o755)
    assert "repo/a.py" in workshop.scan().files
    assert not proof.exists()


@pytest.mark.parametrize(
    "url", ["ext::sh -c touch% PROOF", "--upload-pack=touch PROOF", "-c/../x", "file:///../repo", "https://host/$(x)"]
)
def test_urls_of_submodules_are_not_touched(workshop: "Workshop", url: str) -> None:
    proof = workshop.root / "proof"
    repository = workshop.repository()
    modules = f'[submodule "x"]\n\tpath = x\n\turl = {url.replace("PROOF", str(proof))}\n'
    repository.commit_tree(
        ("100644", repository.blob(modules.encode()), b".gitmodules"),
        ("100644", repository.blob(b"a = 1\n"), b"a.py"),
        ("160000", "ab" * 20, b"x"),
    )
    scanned = workshop.scan(workshop.from_git("repo", submodules=True))
    assert list(scanned.files) == ["repo/a.py"]
    assert not proof.exists()


def test_a_gigabyte_of_zeros_is_not_read(workshop: "Workshop") -> None:
    folder = workshop.volume("disk", {"a.py": "a = 1\n"})
    with (folder / "zeros.py").open("wb") as file:
        file.truncate(2**30)
    scanned = workshop.scan(workshop.from_volume("disk"), files={"include": ["*"]})
    assert scanned.verdicts() == {"a.py": "train", "zeros.py": "TooLarge"}
    assert scanned.report["disk/zeros.py"]["bytes"] == 2**30


def test_only_plain_files_of_a_volume_are_opened(workshop: "Workshop", tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.py").write_text(f"x = '{SECRET}'\n")
    folder = workshop.volume("disk", {"a.py": "a = 1\n", ".git/config": "x", ".git/objects/a.py": "b = 1\n"})
    (folder / "file_link.py").symlink_to(tmp_path / "outside" / "secret.py")
    (folder / "folder_link").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to(folder)
    (folder / "broken.py").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.py")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.py"))
    scanned = workshop.scan(workshop.from_volume("disk"))
    assert scanned.verdicts() == {
        ".git/": "Unreadable",
        "a.py": "train",
        "broken.py": "Unreadable",
        "file_link.py": "Unreadable",
        "folder_link": "Unreadable",
        "loop": "Unreadable",
        "pipe.py": "Unreadable",
        "socket.py": "Unreadable",
    }
    assert SECRET not in "".join(path.read_text() for path in scanned.folder.iterdir())


def test_names_of_a_volume_that_are_no_utf_8_are_shown_escaped(workshop: "Workshop") -> None:
    folder = workshop.volume("disk", {"a.py": "a = 1\n"})
    with open(os.path.join(os.fsencode(folder), b"bad\xff\n.py"), "w") as file:
        file.write("b = 1\n")
    assert list(workshop.scan(workshop.from_volume("disk")).files) == ["disk/a.py", "disk/bad\\xff\n.py"]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("../other", id="dots"),
        pytest.param("/etc", id="absolute"),
        pytest.param("a/../../other", id="dots-inside"),
        pytest.param("link", id="a-link-that-leads-out"),
    ],
)
def test_the_path_of_a_volume_source_stays_inside_the_volume(workshop: "Workshop", path: str) -> None:
    folder = workshop.volume("disk", {"a/x.py": "x = 1\n"})
    workshop.volume("other", {"y.py": "y = 1\n"})
    (folder / "link").symlink_to(workshop.root / "volumes" / "other")
    with pytest.raises(UnsupportedSource):
        workshop.scan(workshop.from_volume("disk", path))


@pytest.mark.parametrize(
    ("expected", "path"),
    [
        pytest.param(["disk/b/y.py", "disk/x.py"], "a", id="a-folder"),
        pytest.param(["disk/y.py"], "a/b/", id="with-a-slash-at-its-end"),
        pytest.param(["disk/a/b/y.py", "disk/a/x.py"], "", id="all-of-it"),
    ],
)
def test_a_folder_of_a_volume_can_be_scanned_alone(workshop: "Workshop", expected: list[str], path: str) -> None:
    workshop.volume("disk", {"a/x.py": "x = 1\n", "a/b/y.py": "y = 1\n", "c.txt": "c\n"})
    assert list(workshop.scan(workshop.from_volume("disk", path)).files) == expected


@pytest.mark.parametrize("name", ["disk", "unknown"])
def test_a_volume_or_folder_that_is_missing_is_unavailable(workshop: "Workshop", name: str) -> None:
    workshop.volume("disk", {"a.py": "a = 1\n"})
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan(workshop.from_volume(name, "missing"))
    assert name in failure.value.message


def test_paths_of_a_volume_are_sorted_whatever_their_folders(workshop: "Workshop") -> None:
    names = ["a/z.py", "a-b/x.py", "a.py", "a0/y.py", "B.py", "a/a/a.py", "\u00e9.py"]
    workshop.volume("disk", {name: f"x = {name!r}\n" for name in names})
    assert list(workshop.scan(workshop.from_volume("disk")).files) == sorted(f"disk/{name}" for name in names)


@pytest.mark.parametrize(
    ("expected", "path"),
    [
        pytest.param(b"a = 1\n", b"a.py", id="a-file"),
        pytest.param(b"b = 1\n", b"deep/b.py", id="a-file-in-a-folder"),
        pytest.param("it can't be opened", b"link.py", id="became-a-link"),
        pytest.param("its folder became a link", b"out/secret.py", id="folder-became-a-link"),
        pytest.param("its folder became a link", b"beside/secret.py", id="link-to-a-folder-of-like-name"),
        pytest.param("no plain file any more", b"pipe.py", id="became-a-pipe"),
        pytest.param("it can't be opened", b"gone.py", id="is-gone"),
        pytest.param("it grew beyond 10 bytes", b"grown.py", id="grew"),
    ],
)
def test_a_file_that_changed_since_it_was_listed_is_not_trusted(
    workshop: "Workshop", expected: bytes | str, path: bytes
) -> None:
    folder = workshop.volume("disk", {"a.py": "a = 1\n", "deep/b.py": "b = 1\n", "grown.py": "x" * 11})
    outside = workshop.volume("disk-of-others", {"secret.py": f"x = '{SECRET}'\n"})
    (folder / "link.py").symlink_to(outside / "secret.py")
    (folder / "out").symlink_to(outside)
    (folder / "beside").symlink_to(folder.with_name("disk-of-others"))
    os.mkfifo(folder / "pipe.py")
    found = read_file(folder.resolve(), path, 10)
    assert found == expected if isinstance(expected, bytes) else str(found).startswith(expected)
