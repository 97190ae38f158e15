"""Makes an archive source ready to be read: secret, download, proof, pack; the last good archive when that fails."""

from dataclasses import dataclass
from pathlib import Path

from codetune_api.project import ArchiveSource, Source

from codetune_trainer.config import Places
from codetune_trainer.errors import DigestMismatch, DiskFull, SourceError, SourceUnavailable, translate
from codetune_trainer.scan.archive.credentials import read_headers
from codetune_trainer.scan.archive.download import Download
from codetune_trainer.scan.archive.formats import read_entries
from codetune_trainer.scan.archive.limits import LIMITS, Limits
from codetune_trainer.scan.archive.pack import read_about, write_pack
from codetune_trainer.scan.archive.shelf import Shelf, hash_file
from codetune_trainer.scan.archive.urls import read_link


@dataclass(frozen=True)
class FetchedArchive:
    """An archive that can be read."""

    pack: Path
    digest: str
    """`sha256:…` of the archive as it was downloaded."""
    warning: str = ""
    """What a person should know about it though it could be read."""
    reason: str = ""
    """Why it is a former archive; empty when it is what the link gives now."""


def fetch_archive(
    source: Source,
    archive: ArchiveSource,
    cache: Path,
    places: Places,
    limits: Limits = LIMITS,
    known: str = "",
) -> FetchedArchive:
    """Have an archive in the store, read and proven.

    Args:
        source: As in spec.
        archive: Its `archive`.
        cache: Folder in the store for what is fetched.
        places: The pod's folders.
        limits: What is allowed.
        known: `sha256:…` of the archive of the last scan, when that is to be scanned again: not asked for if here.

    Raises:
        SourceError: It can't be used, and no former one may stand in for it.
    """
    link = read_link(archive.url)
    shelf = Shelf.of(cache, archive.url)
    wanted = archive.sha256 or known.removeprefix("sha256:")
    warning = reason = ""
    with shelf.locked():
        try:
            if wanted and shelf.has(wanted):
                sha256 = wanted  # whatever the link gives by now
            else:
                headers = read_headers(source.name, find_secret(source, places))
                sha256 = _sync(shelf, Download(shelf.folder, link, headers, limits), archive.sha256, limits)
        except (SourceError, OSError) as trouble:
            error, last = translate(trouble), shelf.current()
            if isinstance(error, DiskFull):
                Download(shelf.folder, link, {}, limits).discard()  # others need the room
            # With a digest in spec a former archive is what the person does not want.
            if last is None or archive.sha256 is not None or not isinstance(error, SourceError | DiskFull):
                raise
            # Whatever ails the link, its server or the Secret must not take away data that is here.
            sha256 = last.sha256
            reason = error.reason
            warning = f"The archive of the last scan (sha256 {sha256[:12]}…) is used. {error.message} {error.hint}"
        about = read_about(shelf.pack(sha256))
    if about is not None and about.replaced:
        said = f"{about.replaced} entries have a name that comes again, such as {about.example!r}: the last one counts."
        warning = f"{warning} {said}".strip()
    return FetchedArchive(shelf.pack(sha256), f"sha256:{sha256}", warning, reason)


def _sync(shelf: Shelf, download: Download, expected: str | None, limits: Limits) -> str:
    """Have the current archive's pack; returns the archive's SHA-256."""
    held = shelf.current()
    validators = download.fetch(held.validators if held is not None else None)
    if held is not None and validators is None:
        download.discard()  # half of a version that the server took back
        _check(held.sha256, expected, download)
        return held.sha256
    assert validators is not None
    sha256 = hash_file(download.file)
    try:
        _check(sha256, expected, download)
        if not shelf.has(sha256):
            with download.file.open("rb") as file:
                write_pack(shelf.pack(sha256), read_entries(file, limits), limits)
    except SourceError:
        download.discard()  # were it damaged on its way, going on with it would never end well
        raise
    shelf.settle(sha256, validators)
    download.discard()
    return sha256


def _check(sha256: str, expected: str | None, download: Download) -> None:
    if expected is None or sha256 == expected:
        return
    message = f"{download.link.shown} has sha256 {sha256}, and archive.sha256 asks for {expected}."
    hint = "If the new content is meant, set archive.sha256 to its digest; otherwise somebody changed the file."
    raise DigestMismatch(message, hint)


def find_secret(source: Source, places: Places) -> Path | None:
    """The folder of a source's Secret; None when it names none.

    Raises:
        SourceUnavailable: There is no such Secret. Somebody may make it meanwhile, so this is tried again.
    """
    if source.credentials_secret_ref is None:
        return None
    folder = places.credentials / source.name if places.credentials is not None else None
    # The kubelet mounts a Secret that does not exist as one without keys; what begins with `..` is its own.
    if folder is None or not folder.is_dir() or all(key.name.startswith("..") for key in folder.iterdir()):
        name = source.credentials_secret_ref.name
        hint = f"Make it in the Project's namespace, or correct credentialsSecretRef; see `kubectl get secret {name}`."
        raise SourceUnavailable(f"The Secret `{name}` of source {source.name!r} does not exist, or is empty.", hint)
    return folder
