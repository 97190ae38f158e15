"""Repositories over HTTP: passwords and tokens, an authority of one's own, redirects, and servers that give nothing."""

import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from codetune_trainer.errors import AuthenticationFailed, SourceError, SourceUnavailable

if TYPE_CHECKING:
    from unit.scan.conftest import Repository, Workshop
    from unit.scan.git.conftest import GitSite

Secret = Callable[..., None]
USER, PASSWORD = "robot", "correct-horse"
TOKEN = "ghp_0123456789abcdef"


@pytest.fixture(autouse=True)
def repository(workshop: "Workshop") -> "Repository":
    made = workshop.repository()
    made.commit({"a.py": workshop.code("a")})
    return made


@pytest.mark.parametrize(
    ("login", "keys"),
    [
        pytest.param((USER, PASSWORD), {"username": USER, "password": PASSWORD}, id="user-and-password"),
        pytest.param((USER, PASSWORD), {"username": USER, "password": f"{PASSWORD}\n"}, id="line-break-at-its-end"),
        pytest.param(("x-access-token", TOKEN), {"token": TOKEN}, id="token-alone"),
        pytest.param(("x-access-token", TOKEN), {"password": TOKEN}, id="password-alone"),
        pytest.param(("oauth2", TOKEN), {"username": "oauth2", "token": TOKEN}, id="token-with-a-name"),
        pytest.param(("ann", "p=w:d \u00e9"), {"username": "ann", "password": "p=w:d \u00e9"}, id="any-characters"),
    ],
)
def test_a_repository_behind_a_login_is_scanned(
    workshop: "Workshop", secure_site: "GitSite", write_secret: Secret, login: tuple[str, str], keys: dict[str, str]
) -> None:
    secure_site.login = login
    write_secret("repo", **keys)
    scanned = workshop.scan(secure_site.source(secret=True))
    assert list(scanned.files) == ["repo/a.py"]
    written = b"".join(path.read_bytes() for path in workshop.places.store.rglob("*") if path.is_file())
    assert login[1].encode() not in written
    assert login[1] not in workshop.events.getvalue()


@pytest.mark.parametrize(
    ("sentence", "keys"),
    [
        pytest.param("no `password` and no `token`", {"username": USER}, id="name-alone"),
        pytest.param("both `password` and `token`", {"password": "a", "token": "b"}, id="password-and-token"),
        pytest.param(
            "`token` in the Secret of source 'repo' is not one line", {"token": "a\nhost=evil"}, id="two-lines"
        ),
        pytest.param("`token` in the Secret of source 'repo' is not one line", {"token": "\n"}, id="empty"),
        pytest.param("no `password` and no `token`", {"ssh-privatekey": "k", "known_hosts": "h"}, id="ssh-keys"),
    ],
)
def test_a_secret_of_no_known_form_is_told_before_anything_is_asked(
    workshop: "Workshop", site: "GitSite", write_secret: Secret, sentence: str, keys: dict[str, str]
) -> None:
    write_secret("repo", **keys)
    with pytest.raises(AuthenticationFailed) as failure:
        workshop.scan(site.source(secret=True))
    assert sentence in failure.value.message
    assert "token" in failure.value.hint + failure.value.message
    assert site.asked == []


LOST = [
    pytest.param("SourceUnavailable", None, id="it is gone"),
    pytest.param("AuthenticationFailed", {"username": USER}, id="it lacks a key"),
    pytest.param("AuthenticationFailed", {"token": "another"}, id="it is refused"),
]


@pytest.mark.parametrize(("reason", "keys"), LOST)
def test_without_its_secret_a_source_is_what_the_last_scan_had_of_it(
    workshop: "Workshop",
    site: "GitSite",
    repository: "Repository",
    write_secret: Secret,
    reason: str,
    keys: dict[str, str] | None,
) -> None:
    module = workshop.repository("module")
    commit = module.commit({"m.py": workshop.code("m")})
    module_url = f'[submodule "lib"]\n\tpath = lib\n\turl = {site.url}/module/.git\n'
    repository.commit({".gitmodules": module_url, "big.py": site.put(workshop.code("big").encode())})
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib")
    repository.git("commit", "--quiet", "--message", "with a submodule")
    site.login = (USER, PASSWORD)
    write_secret("repo", username=USER, password=PASSWORD)
    source = site.source(secret=True, submodules=True, lfs=True)
    before = workshop.scan(source)
    shutil.rmtree(workshop.root / "credentials" / "repo")
    if keys is not None:
        write_secret("repo", **keys)

    after = workshop.scan(source)

    assert set(before.files) == {"repo/a.py", "repo/big.py", "repo/lib/m.py"}
    assert after.result.revision == before.result.revision
    (status,) = after.result.sources
    assert (status.commit, status.reason) == (before.result.sources[0].commit, reason)
    assert "of the last scan is used" in status.message
    assert "submodule" not in status.message


def test_without_a_secret_the_failure_says_so(workshop: "Workshop", site: "GitSite") -> None:
    site.login = (USER, PASSWORD)
    with pytest.raises(AuthenticationFailed) as failure:
        workshop.scan(site.source())
    assert "credentialsSecretRef" in failure.value.hint


def test_a_wrong_password_is_refused_and_not_shown(workshop: "Workshop", site: "GitSite", write_secret: Secret) -> None:
    site.login = (USER, PASSWORD)
    write_secret("repo", username=USER, password="wrong-battery")
    with pytest.raises(AuthenticationFailed) as failure:
        workshop.scan(site.source(secret=True))
    assert "wrong-battery" not in failure.value.message + failure.value.hint


def test_a_repository_that_the_server_does_not_have_is_unavailable(workshop: "Workshop", site: "GitSite") -> None:
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan(site.source("missing.git"))
    assert "not found" in failure.value.message


def test_a_server_that_does_not_answer_is_unavailable(workshop: "Workshop") -> None:
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan({"name": "repo", "git": {"url": "http://127.0.0.1:1/repo.git"}})
    assert "127.0.0.1" in failure.value.message


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"])
def test_the_environment_names_the_authority(
    workshop: "Workshop", secure_site: "GitSite", monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    root = os.environ["SSL_CERT_FILE"]
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv(variable, root)
    assert list(workshop.scan(secure_site.source()).files) == ["repo/a.py"]


def test_an_unknown_authority_is_refused(
    workshop: "Workshop", secure_site: "GitSite", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan(secure_site.source())
    assert "certificate" in failure.value.message
    assert secure_site.asked == []


def test_a_redirect_on_the_same_host_is_followed(workshop: "Workshop", site: "GitSite", write_secret: Secret) -> None:
    site.login = (USER, PASSWORD)
    site.redirects["/old"] = f"{site.url}/repo"
    write_secret("repo", username=USER, password=PASSWORD)
    assert list(workshop.scan(site.source("old/.git", secret=True)).files) == ["repo/a.py"]


def test_a_redirect_to_another_host_takes_no_credentials_along(
    workshop: "Workshop", site: "GitSite", other_site: "GitSite", write_secret: Secret
) -> None:
    other_site.login = (USER, PASSWORD)
    site.redirects["/repo"] = f"{other_site.url}/repo"
    write_secret("repo", username=USER, password=PASSWORD)
    with pytest.raises(AuthenticationFailed):
        workshop.scan(site.source(secret=True))
    assert other_site.authorizations == {""}


def test_a_redirect_after_the_login_takes_no_credentials_along(
    workshop: "Workshop", site: "GitSite", other_site: "GitSite", write_secret: Secret
) -> None:
    site.login = (USER, PASSWORD)
    write_secret("repo", username=USER, password=PASSWORD)
    workshop.scan(site.source(secret=True))
    site.redirects["/repo/.git/git-upload-pack"] = f"{other_site.url}/repo/.git/git-upload-pack"
    after = workshop.scan(site.source(secret=True))
    assert after.result.sources[0].reason == "SourceUnavailable"
    assert other_site.authorizations <= {""}


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("file:///etc", id="file"),
        pytest.param("ext::touch% PROOF", id="ext"),
        pytest.param("ssh://root@127.0.0.1/", id="ssh"),
        pytest.param("ftp://127.0.0.1/", id="ftp"),
        pytest.param("gopher://127.0.0.1:70/", id="gopher"),
        pytest.param("//", id="nowhere"),
    ],
)
def test_a_redirect_to_another_transport_is_refused(
    workshop: "Workshop", site: "GitSite", sentinel: object, target: str
) -> None:
    site.redirects["/repo"] = target.replace("PROOF", str(workshop.root / "proof"))
    with pytest.raises(SourceError) as failure:
        workshop.scan(site.source())
    assert "can't be fetched" in failure.value.message


def test_a_redirect_from_https_to_http_is_refused(
    workshop: "Workshop", secure_site: "GitSite", site: "GitSite"
) -> None:
    secure_site.redirects["/repo"] = f"{site.url}/repo"
    with pytest.raises(SourceUnavailable):
        workshop.scan(secure_site.source())
    assert site.asked == []


def test_redirects_without_an_end_are_given_up(workshop: "Workshop", site: "GitSite") -> None:
    site.redirects["/repo"] = f"{site.url}/repo"
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan(site.source())
    assert "redirects" in failure.value.message
