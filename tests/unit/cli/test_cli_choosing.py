"""Which files an upload takes: exactly those that git would, whether there is a repository or not."""

import contextlib
import os
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
from codetune_cli.choosing import LINK, NAME, SPECIAL, SUBMODULE, choose_files, list_folder
from codetune_cli.errors import CliError


def git(folder: Path, *arguments: str) -> None:
    person = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **person, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, env=environment, timeout=60)


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


TREE = [
    "a.py", "a.log", "keep.log", "build/x.py", "src/a.py", "src/build/x.py", "src/keep.log", "src/deep/b.log",
    "src/deep/c.tmp", "doc/a.txt", "doc/sub/a.txt", "node_modules/m/index.js", "odd name/[x].py", "größe.py",
    "dir.log/inside.py", ".hidden/a.py", ".env",
]  # fmt: skip
ONLY_GIT = "everything but"
"""What pathspec reads more narrowly than git does; docs/uploads.md says so."""
RULES: dict[str, dict[str, str]] = {
    "none": {},
    "names": {".gitignore": "*.log\nnode_modules/\n"},
    "taken back": {".gitignore": "*.log\n!keep.log\n"},
    "anchored": {".gitignore": "/build\n/a.py\n"},
    "folders only": {".gitignore": "build/\na.py/\n"},
    "stars": {".gitignore": "doc/**/a.txt\nsrc/*/b.log\n**/deep/*.tmp\n"},
    ONLY_GIT: {".gitignore": "*\n!*/\n!*.py\n"},
    "below an ignored folder nothing comes back": {".gitignore": "src/\n!src/a.py\n"},
    "nested ones add": {".gitignore": "*.log\n", "src/.gitignore": "*.tmp\nbuild\n"},
    "nested ones win": {".gitignore": "*.log\n", "src/.gitignore": "!*.log\n", "src/deep/.gitignore": "b.log\n"},
    "nested anchors": {"src/.gitignore": "/a.py\ndeep/c.tmp\n"},
    "comments, blanks and escapes": {".gitignore": "# no\n\n\\#a\nodd\\ name/\n*.log   \n"},
    "sets": {".gitignore": "[ab].log\nodd name/\\[x\\].py\n"},
    "Windows line ends": {".gitignore": "*.log\r\nbuild/\r\n"},
}


@pytest.mark.parametrize("ignore", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("has_git", [True, False], ids=["with git", "without git"])
def test_a_folder_outside_of_repositories_gives_what_git_would_list(
    ignore: dict[str, str], has_git: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**dict.fromkeys(TREE, "x\n"), **ignore}
    plain, repository = write(tmp_path / "plain", files), write(tmp_path / "repository", files)
    git(repository, "init", "--quiet")
    expected = set(list_folder(repository, defaultdict(list)))
    assert expected <= set(files)
    if not has_git:
        monkeypatch.setenv("PATH", "")
    if not has_git and ignore is RULES[ONLY_GIT]:
        assert set(list_folder(plain, defaultdict(list))) < expected
    else:
        assert set(list_folder(plain, defaultdict(list))) == expected


def test_a_repository_gives_what_is_committed_and_what_is_new_and_not_what_is_gone(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a.py": "a", "gone.py": "g", "tracked.log": "t", "sub/b.py": "b"})
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "one")
    write(folder, {".gitignore": "*.log\n", "new.py": "n", "new.log": "n"})
    (folder / "gone.py").unlink()
    assert set(choose_files([folder]).files) == {".gitignore", "a.py", "new.py", "sub/b.py", "tracked.log"}
    assert set(choose_files([folder / "sub"]).files) == {"b.py"}


def test_repositories_inside_of_a_repository_are_looked_into(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "outer", {"a.py": "a", "inner/b.py": "b", "inner/.gitignore": "*.log\n", "inner/c.log": "c"}
    )
    library = write(tmp_path / "library", {"lib.py": "l"})
    for each in (library, folder / "inner", folder):
        git(each, "init", "--quiet")
    git(library, "add", "--all")
    git(library, "commit", "--quiet", "--message", "one")
    git(folder, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "lib")
    git(folder, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "empty")
    git(folder, "submodule", "--quiet", "deinit", "--force", "empty")
    choice = choose_files([folder])
    assert set(choice.files) == {"a.py", ".gitmodules", "inner/b.py", "inner/.gitignore", "lib/lib.py"}
    assert choice.left_out[SUBMODULE] == ["empty"]


def test_a_machine_without_git_goes_by_the_ignore_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, {"a.py": "a", "b.log": "b", ".gitignore": "*.log\n"})
    git(folder, "init", "--quiet")
    monkeypatch.setenv("PATH", "")
    assert set(choose_files([folder]).files) == {"a.py", ".gitignore"}


def test_a_folders_own_configuration_runs_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "repository", {"a.py": "a"})
    git(folder, "init", "--quiet")
    trap = tmp_path / "ran"
    git(folder, "config", "core.fsmonitor", f"touch {trap}; true")
    assert set(choose_files([folder]).files) == {"a.py"}
    assert not trap.exists()


def test_an_object_that_is_missing_is_not_fetched_as_a_folders_own_configuration_says(tmp_path: Path) -> None:
    folder = write(tmp_path / "repository", {"a.py": "a", "deep/b.py": "b"})
    trap = tmp_path / "ran"
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "all")
    git(folder, "sparse-checkout", "set", "--cone", "--sparse-index", "nothing")
    tree = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD:deep"], check=True, capture_output=True, text=True
    ).stdout.strip()
    (folder / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    git(folder, "config", "extensions.partialClone", "origin")
    git(folder, "config", "remote.origin.promisor", "true")
    git(folder, "config", "remote.origin.url", "ssh://h/x")
    git(folder, "config", "core.sshCommand", f"touch {trap}; false")
    with contextlib.suppress(CliError):  # releases of git differ in what they say of such a folder
        choose_files([folder])
    assert not trap.exists()


@pytest.mark.parametrize("has_git", [True, False], ids=["with git", "without git"])
def test_what_is_no_plain_file_is_left_out_and_told(
    has_git: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "work", {"a.py": "a"})
    (folder / "link.py").symlink_to(folder / "a.py")
    (folder / "loop").symlink_to(folder)
    (folder / "dangling").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe")
    (folder / os.fsdecode(b"caf\xe9.py")).write_text("x")
    if not has_git:
        monkeypatch.setenv("PATH", "")
    choice = choose_files([folder])
    assert set(choice.files) == {"a.py"}
    assert sorted(choice.left_out[LINK]) == ["dangling", "link.py", "loop"]
    assert choice.left_out[SPECIAL] == ([] if has_git else ["pipe"])  # git does not name them at all
    assert choice.left_out[NAME] == ["caf\\xe9.py"]


def test_several_paths_keep_their_names(tmp_path: Path) -> None:
    write(tmp_path, {"app/a.py": "a", "lib/a.py": "b", "one.py": "c", "app/lib/x.py": "d"})
    paths = [tmp_path / "app", tmp_path / "lib", tmp_path / "one.py"]
    assert set(choose_files(paths).files) == {"app/a.py", "app/lib/x.py", "lib/a.py", "one.py"}
    assert set(choose_files([tmp_path / "one.py"]).files) == {"one.py"}


MISTAKES: dict[str, tuple[str, list[str]]] = {
    "a path that is not there": ("There is no file or folder", ["nowhere"]),
    "two paths of one name": ("same last name 'lib'", ["lib", "app/lib"]),
    "a folder with nothing in it": ("There is no file to send", ["empty"]),
    "a folder that is all ignored": ("ignored by git", ["ignored"]),
}


@pytest.mark.parametrize("row", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_path_that_gives_nothing_is_told(row: tuple[str, list[str]], tmp_path: Path) -> None:
    expected, names = row
    write(tmp_path, {"lib/a.py": "a", "app/lib/a.py": "a", "ignored/.gitignore": "*\n", "ignored/a.py": "a"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(CliError, match=expected):
        choose_files([tmp_path / name for name in names])


def test_what_git_complains_of_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a.py": "a"})
    git(folder, "init", "--quiet")
    (folder / ".git/config").write_text("[core\n")
    with pytest.raises(CliError, match="git can't list the files"):
        choose_files([folder])
