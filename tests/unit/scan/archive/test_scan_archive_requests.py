"""Whom a scan asks for an archive, with which credentials, and what the answers mean."""

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from codetune_trainer.errors import AuthenticationFailed, SourceError, SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.archive.urls import read_link

if TYPE_CHECKING:
    from unit.scan.archive.conftest import Site
    from unit.scan.conftest import Authority, Workshop

    WriteSecret = Callable[..., None]

CODE = {"a.py": "def a(x):\n    return x\n"}
PASSWORD = "correct-horse-battery"
BASIC = f"Basic {base64.b64encode(f'ann:{PASSWORD}'.encode()).decode()}"

SECRETS = [
    pytest.param({"Authorization": BASIC}, {"username": "ann", "password": f"{PASSWORD}\n"}, id="basic-auth"),
    pytest.param({"Authorization": f"Bearer {PASSWORD}"}, {"token": f"{PASSWORD}\n"}, id="token"),
    pytest.param({"PRIVATE-TOKEN": PASSWORD}, {"header.PRIVATE-TOKEN": PASSWORD}, id="header"),
    pytest.param({"Authorization": f"token {PASSWORD}"}, {"header.Authorization": f"token {PASSWORD}"}, id="own-form"),
    pytest.param(
        {"Authorization": f"Bearer {PASSWORD}", "X-Team": "blue"},
        {"token": PASSWORD, "header.X-Team": "blue"},
        id="token-and-header",
    ),
]


@pytest.mark.parametrize(("headers", "keys"), SECRETS)
def test_a_secret_opens_an_archive_and_shows_up_nowhere(
    headers: dict[str, str], keys: dict[str, str], workshop: "Workshop", site: "Site", write_secret: "WriteSecret"
) -> None:
    write_secret(**keys)
    site.put("/code", site.zip(CODE), needs=headers)
    scanned = workshop.scan(site.source("/code", secret=True))
    assert list(scanned.files) == ["app/a.py"]
    written = b"".join(path.read_bytes() for path in workshop.places.store.rglob("*") if path.is_file())
    shown = workshop.events.getvalue() + scanned.result.model_dump_json()
    for secret in (PASSWORD, BASIC):
        assert secret.encode() not in written
        assert secret not in shown


BAD_SECRETS = [
    pytest.param("no `username` and `password`", {"ssh-privatekey": "x"}, id="of-another-kind"),
    pytest.param("no `password`", {"username": "ann"}, id="no-password"),
    pytest.param("no `username`", {"password": PASSWORD}, id="no-username"),
    pytest.param("more than one way", {"token": PASSWORD, "username": "a", "password": "b"}, id="two-forms"),
    pytest.param("more than one way", {"token": PASSWORD, "header.authorization": "b"}, id="two-authorizations"),
    pytest.param("may not set the header 'Host'", {"header.Host": "x"}, id="host"),
    pytest.param("may not set the header 'range'", {"header.range": "bytes=0-"}, id="range"),
    pytest.param("may not set the header ''", {"header.": "x"}, id="no-header-name"),
    pytest.param("can't stand in an HTTP header", {"token": f"{PASSWORD}\r\nHost: evil"}, id="line-break"),
    pytest.param("can't stand in an HTTP header", {"header.X-A": "ü"}, id="no-ascii"),
    pytest.param("can't stand in an HTTP header", {"token": ""}, id="empty"),
    pytest.param("has a colon", {"username": "a:b", "password": PASSWORD}, id="colon"),
]


@pytest.mark.parametrize(("said", "keys"), BAD_SECRETS)
def test_a_secret_that_makes_no_headers_is_told_without_its_values(
    said: str, keys: dict[str, str], workshop: "Workshop", site: "Site", write_secret: "WriteSecret"
) -> None:
    write_secret(**keys)
    site.put("/code", site.zip(CODE))
    with pytest.raises(AuthenticationFailed) as failure:
        workshop.scan(site.source("/code", secret=True))
    assert said in failure.value.message
    assert PASSWORD not in failure.value.message + failure.value.hint
    assert site.asked == []


def test_a_secret_that_is_not_there_is_told(workshop: "Workshop", site: "Site") -> None:
    with pytest.raises(SourceUnavailable, match="does not exist"):
        workshop.scan(site.source("/code", secret=True))


@pytest.mark.parametrize("secret", [True, False])
def test_a_server_that_refuses_is_told(
    secret: bool, workshop: "Workshop", site: "Site", write_secret: "WriteSecret"
) -> None:
    write_secret(token="wrong-battery")
    site.put("/code", site.zip(CODE), needs={"Authorization": BASIC})
    with pytest.raises(AuthenticationFailed) as failure:
        workshop.scan(site.source("/code", secret=secret))
    assert "credentialsSecretRef" in failure.value.hint
    assert "wrong-battery" not in failure.value.message + failure.value.hint


def test_a_redirect_on_the_same_server_keeps_the_credentials(
    workshop: "Workshop", site: "Site", write_secret: "WriteSecret"
) -> None:
    write_secret(token=PASSWORD)
    site.redirects = {"/latest": "/releases/7", "/releases/7": "../v7.zip"}
    site.put("/v7.zip", site.zip(CODE), needs={"Authorization": f"Bearer {PASSWORD}"})
    assert list(workshop.scan(site.source("/latest", secret=True)).files) == ["app/a.py"]
    assert [asked.path for asked in site.asked] == ["/latest", "/releases/7", "/v7.zip"]


@pytest.mark.parametrize(
    "keys", [{"token": PASSWORD}, {"username": "ann", "password": PASSWORD}, {"header.PRIVATE-TOKEN": PASSWORD}]
)
def test_a_redirect_to_another_server_carries_no_credentials_not_even_back(
    keys: dict[str, str], workshop: "Workshop", site: "Site", other_site: "Site", write_secret: "WriteSecret"
) -> None:
    write_secret(**keys)
    site.redirects["/code"] = f"{other_site.url}/away"
    other_site.redirects["/away"] = f"{site.url}/back"
    site.put("/back", site.zip(CODE))
    assert list(workshop.scan(site.source("/code", secret=True)).files) == ["app/a.py"]
    first, back = site.asked
    assert {"authorization", "private-token"} & set(first.headers)
    for asked in (*other_site.asked, back):
        assert not {"authorization", "private-token"} & set(asked.headers)


def test_another_port_is_another_server(
    workshop: "Workshop", site: "Site", secure_site: "Site", write_secret: "WriteSecret"
) -> None:
    write_secret(token=PASSWORD)
    site.redirects["/code"] = f"{secure_site.url}/code"
    secure_site.put("/code", site.zip(CODE))
    assert list(workshop.scan(site.source("/code", secret=True)).files) == ["app/a.py"]
    assert "authorization" not in secure_site.asked[0].headers


def test_a_redirected_server_that_refuses_is_told_by_its_name(
    workshop: "Workshop", site: "Site", other_site: "Site", write_secret: "WriteSecret"
) -> None:
    write_secret(token=PASSWORD)
    site.redirects["/code"] = f"{other_site.url}/code"
    other_site.put("/code", site.zip(CODE), needs={"Authorization": "x"})
    with pytest.raises(AuthenticationFailed, match=r"redirects to 127\.0\.0\.2, which refuses"):
        workshop.scan(site.source("/code", secret=True))


def test_a_redirect_from_https_to_http_is_refused(workshop: "Workshop", site: "Site", secure_site: "Site") -> None:
    site.put("/code", site.zip(CODE))
    secure_site.redirects["/code"] = f"{site.url}/code"
    with pytest.raises(UnsupportedSource, match="which is not encrypted"):
        workshop.scan(secure_site.source("/code"))
    assert site.asked == []


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("file:///etc/passwd", id="a-file"),
        pytest.param("ftp://127.0.0.1/x", id="ftp"),
        pytest.param("gopher://127.0.0.1/x", id="gopher"),
        pytest.param("", id="nowhere"),
        pytest.param("//user:hunter2@127.0.0.1/x", id="with-credentials"),
        pytest.param("https://127.0.0.1:99999999/", id="no-port"),
        pytest.param("data:text/plain,x", id="data"),
        pytest.param("https://cxn--_/x", id="a-host-that-can-not-be-decoded"),
    ],
)
def test_a_redirect_to_what_is_no_link_is_refused(location: str, workshop: "Workshop", site: "Site") -> None:
    site.redirects["/code"] = location
    with pytest.raises(UnsupportedSource) as failure:
        workshop.scan(site.source("/code"))
    assert "hunter2" not in failure.value.message
    assert len(site.asked) <= 6


def test_a_redirect_of_any_length_is_told_in_few_words(workshop: "Workshop", site: "Site") -> None:
    site.redirects["/code"] = "/" + "x" * 30_000
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan(site.source("/code"))
    assert len(failure.value.message) < 1000


def test_redirects_in_a_circle_come_to_an_end(workshop: "Workshop", site: "Site") -> None:
    site.redirects = {"/code": "/more", "/more": "/code"}
    with pytest.raises(UnsupportedSource, match="more than 5 times"):
        workshop.scan(site.source("/code"))
    assert len(site.asked) == 6


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://ann:hunter2@host/x.zip", id="credentials"),
        pytest.param("https://hunter2@host/x.zip", id="a-token"),
        pytest.param("http:///x.zip", id="no-host"),
        pytest.param("https://host:0/x.zip", id="port-0"),
        pytest.param("https://host:hunter2/x.zip", id="no-port"),
        pytest.param("https://ho st/hunter2", id="a-blank"),
        pytest.param("https://host/\nhunter2", id="a-line-break"),
        pytest.param("file:///etc/passwd", id="a-file"),
        pytest.param("ext::sh -c touch", id="a-transport-of-git"),
        pytest.param("--output=/etc/passwd", id="an-option"),
        pytest.param("https://cxn--_/x", id="a-host-that-can-not-be-decoded"),
        pytest.param("https://-xn--a/", id="a-host-that-begins-with-a-dash"),
    ],
)
def test_a_link_that_is_none_is_refused_without_showing_secrets(url: str) -> None:
    with pytest.raises(UnsupportedSource) as failure:
        read_link(url)
    assert "hunter2" not in failure.value.message.replace("https://host:hunter2", "")
    assert failure.value.hint


def test_a_signed_link_is_shown_without_its_signature(workshop: "Workshop", site: "Site") -> None:
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan(site.source("/code.zip?X-Signature=hunter2#part"))
    assert failure.value.message.startswith(f"{site.url}/code.zip?… does not exist")
    assert site.asked[0].path == "/code.zip?X-Signature=hunter2"


def test_the_authorities_of_the_environment_are_trusted(workshop: "Workshop", secure_site: "Site") -> None:
    secure_site.put("/code", secure_site.zip(CODE))
    assert list(workshop.scan(secure_site.source("/code")).files) == ["app/a.py"]


def test_a_certificate_of_an_unknown_authority_is_refused_with_its_cure(
    workshop: "Workshop", secure_site: "Site", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    secure_site.put("/code", secure_site.zip(CODE))
    with pytest.raises(SourceUnavailable, match="certificate") as failure:
        workshop.scan(secure_site.source("/code"))
    assert "SSL_CERT_FILE" in failure.value.hint


def test_a_certificate_of_another_host_is_refused(
    workshop: "Workshop", secure_site: "Site", authority: "Authority"
) -> None:
    secure_site.put("/code", secure_site.zip(CODE))
    source = secure_site.source("/code")
    source["archive"]["url"] = source["archive"]["url"].replace("127.0.0.1", "localhost")
    with pytest.raises(SourceUnavailable, match="certificate"):
        workshop.scan(source)


def test_the_proxy_of_the_environment_is_used(
    workshop: "Workshop", site: "Site", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", site.url)
    site.put("http://archives.example.org/code", site.zip(CODE))
    source = {"name": "app", "archive": {"url": "http://archives.example.org/code"}}
    assert list(workshop.scan(source).files) == ["app/a.py"]


@pytest.mark.parametrize("proxy", ["ftp://ann:hunter2@127.0.0.1:1", "socks5://ann:hunter2@127.0.0.1:1"])
def test_a_proxy_that_can_not_be_used_is_told_without_its_password(
    proxy: str, workshop: "Workshop", site: "Site", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(SourceUnavailable) as failure:
        workshop.scan(site.source("/code"))
    assert "HTTPS_PROXY" in failure.value.hint
    assert "hunter2" not in failure.value.message + failure.value.hint


def test_a_server_that_is_not_there_is_told(workshop: "Workshop", closed_port: int) -> None:
    source = {"name": "app", "archive": {"url": f"http://127.0.0.1:{closed_port}/x.zip"}}
    with pytest.raises(SourceUnavailable, match="tried 3 times"):
        workshop.scan(source)


STATUSES: list[Any] = [
    pytest.param(SourceUnavailable, "does not exist", 404, id="404"),
    pytest.param(SourceUnavailable, "does not exist", 410, id="410"),
    pytest.param(SourceUnavailable, "proxy wants credentials", 407, id="407"),
    pytest.param(SourceUnavailable, "status 418", 418, id="418"),
    pytest.param(SourceUnavailable, "status 500 (tried 3 times)", 500, id="500"),
    pytest.param(SourceUnavailable, "status 204", 204, id="204"),
    pytest.param(SourceUnavailable, "status 206", 206, id="206-unasked"),
    pytest.param(SourceUnavailable, "status 304", 304, id="304-unasked"),
    pytest.param(AuthenticationFailed, "asks for credentials", 403, id="403"),
]


@pytest.mark.parametrize(("error", "said", "status"), STATUSES)
def test_every_answer_without_a_file_is_told(
    error: type[SourceError], said: str, status: int, workshop: "Workshop", site: "Site"
) -> None:
    site.statuses["/code"] = [(status, {})] * 10
    with pytest.raises(error) as failure:
        workshop.scan(site.source("/code"))
    assert said in failure.value.message
    assert failure.value.hint
