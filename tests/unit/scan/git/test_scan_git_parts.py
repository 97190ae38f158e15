"""What is fetched of a repository: not more than a scan reads, and the next time not more than has changed."""

import random
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_trainer.errors import PathNotFound, UnsupportedSource
from codetune_trainer.scan.git import mirror, repacking
from codetune_trainer.scan.rules.judge import READ_LIMIT_BYTES

if TYPE_CHECKING:
    from unit.scan.conftest import Repository, Workshop
    from unit.scan.git.conftest import GitSite


def noise(seed: int, size: int = 40_000) -> bytes:
    """Bytes that do not pack."""

    return random.Random(seed).randbytes(size)


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs of 20 kB are too large."""
    monkeypatch.setattr(mirror, "_SMALL_BLOBS", "blob:limit=20000")


@pytest.fixture
def monorepo(workshop: "Workshop") -> "Repository":
    """Two folders, each with text and large noise."""
    repository = workshop.repository()
    files = {f"{team}/{name}.py": workshop.code(f"{team}_{name}") for team in ("shop", "bank") for name in "abc"}
    repository.commit({**files, "shop/large.bin": noise(1), "bank/large.bin": noise(2), "README.md": "# All\n"})
    return repository


def find_mirror(workshop: "Workshop") -> Path:
    (mirror,) = (workshop.places.store / "team/projects/code/sources").glob("git-*.git")
    return mirror


def has(workshop: "Workshop", repository: "Repository", name: str) -> bool:
    """Whether the mirror has an object of the repository."""
    identity = repository.git("rev-parse", name)
    command = ["git", f"--git-dir={find_mirror(workshop)}", "cat-file", "-e", identity]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_file_that_is_too_large_for_any_scan_is_not_fetched(workshop: "Workshop", site: "GitSite") -> None:
    repository = workshop.repository()
    just, above = b"\0" * READ_LIMIT_BYTES, b"\0" * (READ_LIMIT_BYTES + 1)
    repository.commit({"a.py": workshop.code("a"), "just.bin": just, "above.bin": above})
    scanned = workshop.scan(site.source())
    assert scanned.verdicts() == {"a.py": "train", "just.bin": "TooLarge", "above.bin": "Unreadable"}
    assert f"more than {READ_LIMIT_BYTES} bytes" in scanned.report["repo/above.bin"]["detail"]
    assert has(workshop, repository, "HEAD:just.bin")
    assert not has(workshop, repository, "HEAD:above.bin")


def test_include_does_not_bring_back_what_was_not_fetched(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository", small_limit: None
) -> None:
    scanned = workshop.scan(site.source(), files={"include": ["*"]})
    assert scanned.verdicts()["shop/large.bin"] == "Unreadable"


def test_what_is_missing_is_never_asked_for_one_by_one(
    workshop: "Workshop", site: "GitSite", small_limit: None
) -> None:
    repository = workshop.repository()
    asked = []
    for number in (1, 40):
        repository.commit({f"{number}/{each}.bin": noise(number * 100 + each) for each in range(number)})
        repository.commit({f"{number}.py": workshop.code(f"c{number}")})
        site.asked.clear()
        scanned = workshop.scan(site.source())
        asked.append([(seen.method, seen.path) for seen in site.asked])
    assert asked[0] == asked[1]
    assert sum(verdict == "Unreadable" for verdict in scanned.verdicts().values()) == 41


def test_the_next_scan_gets_only_what_changed(workshop: "Workshop", site: "GitSite") -> None:
    repository = workshop.repository()
    repository.commit({f"{number}.bin": noise(number) for number in range(20)})
    repository.commit({"a.py": workshop.code("a")})
    workshop.scan(site.source())
    first = site.sent
    repository.commit({"b.py": workshop.code("b")})
    site.asked.clear()
    assert len(workshop.scan(site.source()).files) == 2
    assert first > 20 * 40_000
    assert site.sent < 5_000


def test_a_scan_without_a_change_gets_nothing(workshop: "Workshop", site: "GitSite", monorepo: "Repository") -> None:
    workshop.scan(site.source())
    site.asked.clear()
    workshop.scan(site.source())
    assert site.sent < 2_000


def test_a_folder_comes_without_the_rest_of_its_repository(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository"
) -> None:
    scanned = workshop.scan(site.source(path="shop/"), files={"exclude": ["/c.py"]})
    assert scanned.verdicts() == {"a.py": "train", "b.py": "train", "c.py": "Excluded", "large.bin": "Binary"}
    assert scanned.result.sources[0].commit == monorepo.git("rev-parse", "HEAD")
    assert has(workshop, monorepo, "HEAD:shop/large.bin")
    assert not has(workshop, monorepo, "HEAD:bank/large.bin")
    assert not has(workshop, monorepo, "HEAD:bank/a.py")
    assert site.sent < 60_000


def test_the_next_scan_of_a_folder_gets_what_changed_in_it(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository"
) -> None:
    workshop.scan(site.source(path="shop"))
    monorepo.commit({"shop/d.py": workshop.code("d"), "shop/deep/e.py": workshop.code("e"), "bank/new.bin": noise(9)})
    site.asked.clear()
    files = workshop.scan(site.source(path="shop")).files
    assert list(files) == ["repo/a.py", "repo/b.py", "repo/c.py", "repo/d.py", "repo/deep/e.py"]
    assert site.sent < 5_000
    assert not has(workshop, monorepo, "HEAD:bank/new.bin")


def test_what_moves_into_a_folder_is_fetched_though_the_server_believes_it_is_here(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository"
) -> None:
    workshop.scan(site.source(path="shop"))
    monorepo.git("mv", "bank", "shop/bank")
    monorepo.commit({})
    scanned = workshop.scan(site.source(path="shop"))
    assert scanned.verdicts()["bank/a.py"] == "train"
    assert scanned.verdicts()["bank/large.bin"] == "Binary"


def test_what_was_too_large_in_a_folder_stays_away(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository", small_limit: None
) -> None:
    assert workshop.scan(site.source(path="shop")).verdicts()["large.bin"] == "Unreadable"
    monorepo.commit({"shop/d.py": workshop.code("d")})
    site.asked.clear()
    scanned = workshop.scan(site.source(path="shop"))
    assert (scanned.verdicts()["large.bin"], scanned.verdicts()["d.py"]) == ("Unreadable", "train")
    assert not has(workshop, monorepo, "HEAD:shop/large.bin")
    assert site.sent < 5_000


def test_what_comes_into_a_folder_and_is_too_large_is_not_fetched_either(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository", small_limit: None
) -> None:
    workshop.scan(site.source(path="shop"))
    monorepo.commit({"shop/new.bin": noise(50), "shop/deep/new.bin": noise(51), "shop/small.bin": noise(52, 5000)})
    for number in range(2):
        site.asked.clear()
        verdicts = workshop.scan(site.source(path="shop")).verdicts()
        assert (verdicts["new.bin"], verdicts["deep/new.bin"], verdicts["small.bin"]) == (
            "Unreadable",
            "Unreadable",
            "Binary",
        )
        assert site.sent < 12_000
        monorepo.commit({f"shop/{number}.py": workshop.code(f"n{number}")})
    assert not has(workshop, monorepo, "HEAD:shop/deep/new.bin")


def test_a_scan_that_was_killed_half_way_is_made_good(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository"
) -> None:
    workshop.scan(site.source(path="shop"))
    commit = monorepo.commit({"shop/d.py": workshop.code("d"), "shop/deep/e.py": workshop.code("e")})
    settings = (f"url={site.url}/repo/.git", "promisor=true", "partialclonefilter=blob:none")
    command = [
        "git",
        f"--git-dir={find_mirror(workshop)}",
        *(part for setting in settings for part in ("-c", f"remote.origin.{setting}")),
    ]
    # The trees are here and their blobs are not.
    fetch = ["fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", f"+{commit}:refs/codetune/next"]
    subprocess.run([*command, *fetch], check=True, capture_output=True)
    assert has(workshop, monorepo, "HEAD:shop/deep")
    assert not has(workshop, monorepo, "HEAD:shop/deep/e.py")
    assert {"repo/d.py", "repo/deep/e.py"} < set(workshop.scan(site.source(path="shop")).files)


def test_two_folders_of_one_repository_are_two_sources(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository"
) -> None:
    sources = [site.source(name=team, path=team) for team in ("shop", "bank")]
    for _ in range(2):
        scanned = workshop.scan(*sources)
        assert list(scanned.files) == [f"{team}/{name}.py" for team in ("bank", "shop") for name in "abc"]
        monorepo.commit({"README.md": "# More\n"})


def test_a_folder_of_a_tag_and_of_a_branch_are_two_sources(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository"
) -> None:
    monorepo.git("tag", "-a", "v1", "-m", "first")
    monorepo.commit({"shop/d.py": workshop.code("d")})
    sources = [site.source(name="new", path="shop"), site.source(name="old", path="shop", revision="v1", use="Train")]
    sources[1]["git"].pop("use")
    for _ in range(2):
        scanned = workshop.scan(*sources, files={"duplicates": "Allow"})
        assert [path for path in scanned.files if path.startswith("old")] == ["old/a.py", "old/b.py", "old/c.py"]
        assert "new/d.py" in scanned.files


@pytest.mark.parametrize(
    ("sentence", "path"),
    [
        pytest.param("'shop/x' does not exist", "shop/x", id="missing"),
        pytest.param("'nowhere' does not exist", "nowhere/at/all", id="missing-above"),
        pytest.param("'shop/a.py' is a file", "shop/a.py", id="a-file"),
        pytest.param("'shop/a.py' is a file", "shop/a.py/deep", id="below-a-file"),
        pytest.param("'link' is a file", "link", id="a-link-to-a-folder"),
        pytest.param("leads into the submodule 'module'", "module/src", id="in-a-submodule"),
        pytest.param("'*' does not exist", "*", id="no-pattern"),
        pytest.param("':(top)shop' does not exist", ":(top)shop", id="no-pathspec"),
    ],
)
def test_a_path_that_is_no_folder_of_the_commit_is_named(
    workshop: "Workshop", site: "GitSite", sentence: str, path: str
) -> None:
    repository = workshop.repository()
    tree = repository.git("mktree", data=f"100644 blob {repository.blob(b'a = 1')}\ta.py\n".encode())
    link = ("120000", repository.blob(b"shop"), b"link")
    repository.commit_tree(link, ("160000", "ab" * 20, b"module"), ("040000", tree, b"shop"))
    with pytest.raises(PathNotFound) as failure:
        workshop.scan(site.source(path=path))
    assert sentence in failure.value.message
    assert failure.value.hint


@pytest.mark.parametrize("path", ["../x", "shop/../../x", "/shop", "shop/.."])
def test_a_path_stays_inside_the_repository(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository", path: str
) -> None:
    with pytest.raises(UnsupportedSource) as failure:
        workshop.scan(site.source(path=path))
    assert repr(path) in failure.value.message


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="no-filters"),
        pytest.param({"uploadpack.allowFilter": "true", "uploadpackfilter.allow": "false"}, id="every-filter-refused"),
    ],
)
@pytest.mark.parametrize("path", ["", "shop"], ids=["all", "folder"])
def test_a_server_that_leaves_nothing_out_works_too(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository", settings: dict[str, str], path: str
) -> None:
    site.settings = settings
    assert len(workshop.scan(site.source(path=path)).files) == (3 if path else 6)
    monorepo.commit({"shop/d.py": workshop.code("d")})
    assert len(workshop.scan(site.source(path=path)).files) == (4 if path else 7)


def test_a_server_of_the_first_protocol_works_too(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository"
) -> None:
    site.newest_protocol = False
    assert len(workshop.scan(site.source(path="shop")).files) == 3
    assert site.sent > 80_000  # such a server gives no folder alone
    for name in ("d", "e"):
        monorepo.commit({f"shop/{name}.py": workshop.code(name)})
        site.asked.clear()
        assert f"repo/{name}.py" in workshop.scan(site.source(path="shop")).files
        assert site.sent < 5_000


@pytest.mark.parametrize("newest", [True, False], ids=["newest-protocol", "first-protocol"])
@pytest.mark.parametrize("digits", [40, 12])
def test_a_commit_inside_history_comes_alone(workshop: "Workshop", site: "GitSite", digits: int, newest: bool) -> None:
    repository = workshop.repository()
    repository.commit({"old.bin": noise(1), "a.py": workshop.code("a")})
    repository.git("rm", "--quiet", "old.bin")
    wanted = repository.commit({"b.py": workshop.code("b")})
    repository.commit({"new.bin": noise(2)})
    site.newest_protocol = newest
    scanned = workshop.scan(site.source(revision=wanted[:digits]))
    assert (scanned.result.sources[0].commit, list(scanned.files)) == (wanted, ["repo/a.py", "repo/b.py"])
    # A server that gives no single commits gives all that leads to a branch.
    assert has(workshop, repository, "HEAD:new.bin") is not newest


def test_a_commit_that_no_branch_leads_to_comes_by_its_name(workshop: "Workshop", site: "GitSite") -> None:
    repository = workshop.repository()
    repository.commit({"a.py": workshop.code("a")})
    lost = repository.commit({"b.py": workshop.code("b")})
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    assert len(workshop.scan(site.source(revision=lost)).files) == 2


def test_a_mirror_does_not_grow_with_every_scan(
    workshop: "Workshop", site: "GitSite", monorepo: "Repository", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repacking, "_PACKS_BEFORE_CLEANING", 3)
    workshop.scan(site.source(path="shop"))
    for number in range(8):
        monorepo.commit({"shop/large.bin": noise(100 + number)})
        scanned = workshop.scan(site.source(path="shop"))
        packs = list((find_mirror(workshop) / "objects" / "pack").glob("*.pack"))
        assert len(packs) <= 5
        assert len(scanned.files) == 3
    assert not has(workshop, monorepo, "HEAD~8:shop/large.bin")
    assert has(workshop, monorepo, "HEAD:shop/large.bin")


SPECS = [
    pytest.param({}, id="all"),
    pytest.param({"path": "src"}, id="a-folder"),
    pytest.param({"revision": "SHORT"}, id="first-digits-of-a-commit"),
]


@pytest.mark.parametrize("over_http", [True, False], ids=["http", "file"])
@pytest.mark.parametrize("spec", SPECS)
def test_objects_may_be_named_by_sha256(
    spec: dict[str, str], over_http: bool, workshop: "Workshop", site: "GitSite"
) -> None:
    repository = workshop.repository(object_format="sha256")
    for name in ("a", "b"):
        commit = repository.commit({f"src/{name}.py": workshop.code(name)})
        asked = {key: value.replace("SHORT", commit[:9]) for key, value in spec.items()}
        scanned = workshop.scan(site.source(**asked) if over_http else workshop.from_git("repo", **asked))
        (status,) = scanned.result.sources
        assert (status.commit, status.reason, len(commit)) == (commit, "", 64)
        assert {path.rpartition("/")[2] for path in scanned.files} == {"a.py", f"{name}.py"}


def test_a_repository_that_changes_the_names_of_its_objects_is_followed(workshop: "Workshop") -> None:
    for object_format in ("sha1", "sha256", "sha1"):
        repository = workshop.repository(object_format=object_format)
        commit = repository.commit({"a.py": workshop.code("a")})
        assert workshop.scan().result.sources[0].commit == commit
        shutil.rmtree(repository.folder)
