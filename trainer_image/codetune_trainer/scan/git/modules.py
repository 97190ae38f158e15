"""Reads `.gitmodules`: which repository a submodule comes from. Its author is not trusted with more than a URL."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from codetune_trainer.errors import SourceError, UnsupportedSource
from codetune_trainer.scan.git.parts import MODULES_FILE
from codetune_trainer.scan.git.reading import Repository
from codetune_trainer.scan.git.running import GitError, shorten
from codetune_trainer.scan.git.urls import Remote, read_url

MODULES_BYTES = 2**20
"""Length of a `.gitmodules`; one with a thousand submodules has 100 KiB."""
_SCP_LIKE = re.compile(r"[^/:]+@[^/:]+:")


def read_modules(repository: Repository, commit: str) -> dict[str, str]:
    """Path of each submodule → its URL as it stands there.

    Raises:
        UnsupportedSource: The list can't be read.
    """
    listed = repository.run("ls-tree", "--long", "--full-tree", commit, "--", MODULES_FILE).split()
    if not listed:
        return {}
    mode, _, identity, size = listed[:4]
    hint = "Correct it in the repository."
    if mode not in {"100644", "100755"}:
        raise UnsupportedSource(f"its {MODULES_FILE} is no plain file", hint)
    if not size.isdigit() or int(size) > MODULES_BYTES:
        raise UnsupportedSource(f"its {MODULES_FILE} has more than {MODULES_BYTES} bytes", hint)
    try:
        # git's own reader; of a blob it follows no `include`.
        asked = ("config", "--blob", identity, "--no-includes", "-z", "--get-regexp", r"^submodule\..*\.(path|url)$")
        said = repository.run(*asked)
    except GitError as error:
        if not str(error) or "ended with 1" in str(error):
            return {}  # git says nothing where nothing is set
        raise UnsupportedSource(f"its {MODULES_FILE} can't be read: {shorten(str(error))}", hint) from error
    return _pair(said)


def _pair(said: str) -> dict[str, str]:
    fields: dict[str, dict[str, str]] = {}
    for line in said.split("\0"):
        name, _, value = line.partition("\n")
        module, _, key = name.removeprefix("submodule.").rpartition(".")
        fields.setdefault(module, {})[key] = value
    return {module["path"]: module["url"] for module in fields.values() if module.keys() >= {"path", "url"}}


def find_remote(url: str, parent: Remote, file_root: Path | None) -> Remote:
    """Where a submodule is fetched from.

    Args:
        url: As it stands in `.gitmodules`; one that begins with `./` or `../` counts from the parent's.
        parent: The repository that it is a submodule of.
        file_root: What `file:///` means; None: file URLs are refused.

    Raises:
        SourceError: The URL is of no form that is taken.
    """
    resolved = _resolve(url, parent.shown) if url.startswith(("./", "../")) else url
    try:
        remote = read_url(resolved, file_root)
    except SourceError as error:
        raise UnsupportedSource(f"its URL is not taken: {error.message}", error.hint) from error
    if remote.protocol == "file" and parent.protocol != "file":
        message = f"its URL {url[:200]!r} is on this machine, and its parent is not"
        raise UnsupportedSource(message, "Correct it in the repository.")
    return remote


def _resolve(url: str, parent: str) -> str:
    """As git does it, but that no `..` changes the host."""
    scp_like = _SCP_LIKE.match(parent)
    root = scp_like[0] if scp_like else f"{urlsplit(parent).scheme}://{urlsplit(parent).netloc}/"
    if scp_like and parent.startswith(f"{root}/"):
        root += "/"
    parts = [part for part in parent.removeprefix(root).split("/") if part]
    for part in url.split("/"):
        if part == "..":
            if not parts:
                message = f"its URL {url[:200]!r} leads above the root of {parent}"
                raise UnsupportedSource(message, "Correct it in the repository.")
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return root + "/".join(parts)
