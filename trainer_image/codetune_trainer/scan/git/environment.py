"""The world that git runs in: nothing of the machine's or the user's settings, no prompt, no hook, few transports.

Credentials reach git through a helper program and ssh through a private file; never through arguments or URLs.
"""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from codetune_trainer.scan.git.secrets import Credentials

CREDENTIALS_VARIABLE = "CODETUNE_GIT_CREDENTIALS"
"""Folder of the Secret's keys, for the credential helper."""
CREDENTIALS_HOST_VARIABLE = "CODETUNE_GIT_CREDENTIALS_FOR"
"""`protocol://host` that alone may get them."""
_KEPT = (
    "PATH",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    *(name for lower in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (lower, lower.upper())),
)
"""What git gets of our own environment: where programs are, the cluster's proxy and its certificate authorities."""
_SETTINGS = """\
[core]
	hooksPath = /dev/null
	symlinks = false
	fsmonitor = false
[credential]
	helper =
	helper = {helper}
[fetch]
	recurseSubmodules = false
	unpackLimit = 1
[submodule]
	recurse = false
[gc]
	auto = 0
[maintenance]
	auto = false
[http]
	followRedirects = initial
	lowSpeedLimit = 1000
	lowSpeedTime = 60
[safe]
	directory = *
[advice]
	detachedHead = false
[init]
	defaultBranch = main
"""
"""Written as git's global settings rather than given with `-c`: these also hold for the programs that git starts."""


def build_environment(
    home: Path, protocols: tuple[str, ...], host: str, credentials: Credentials | None
) -> Mapping[str, str]:
    """Environment variables for git, and the files that they name, below `home`.

    Args:
        home: A private folder of this source, made when absent.
        protocols: Transports that git may use at all.
        host: `protocol://host` that the credentials are for.
        credentials: The source's Secret; None when it has none.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = home / "gitconfig"
    settings.write_text(_SETTINGS.format(helper=_quote(_helper_command())))
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= _find_authorities(environment)
    environment |= {
        "HOME": str(home),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(settings),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GIT_ALLOW_PROTOCOL": ":".join(protocols),
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_SSH_VARIANT": "ssh",
        "GIT_SSH_COMMAND": _ssh_command(home, credentials),
        "GIT_LITERAL_PATHSPECS": "1",
    }
    if credentials is not None and (credentials.has("password") or credentials.has("token")):
        environment |= {CREDENTIALS_VARIABLE: str(credentials.folder), CREDENTIALS_HOST_VARIABLE: host}
    return environment


def _find_authorities(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Certificate authorities by git's own names: Debian's build of curl knows the names of OpenSSL and curl not."""
    places = (
        ("GIT_SSL_CAINFO", ("GIT_SSL_CAINFO", "CURL_CA_BUNDLE", "SSL_CERT_FILE")),
        ("GIT_SSL_CAPATH", ("GIT_SSL_CAPATH", "SSL_CERT_DIR")),
    )
    return {
        name: next(environment[source] for source in sources if source in environment)
        for name, sources in places
        if not environment.keys().isdisjoint(sources)
    }


def _ssh_command(home: Path, credentials: Credentials | None) -> str:
    options = [
        *("-F", os.devnull),
        *("-o", "BatchMode=yes"),
        *("-o", "StrictHostKeyChecking=yes"),
        *("-o", "UpdateHostKeys=no"),
        *("-o", f"GlobalKnownHostsFile={os.devnull}"),
        *("-o", "PreferredAuthentications=publickey"),
        *("-o", "IdentitiesOnly=yes"),
        *("-o", "IdentityAgent=none"),
        *("-o", "ConnectTimeout=30"),
        *("-o", "ServerAliveInterval=20"),
    ]
    if credentials is not None and credentials.has("ssh-privatekey"):
        key = _private_copy(credentials.folder / "ssh-privatekey", home / "key")
        options += ["-i", str(key), "-o", f'UserKnownHostsFile="{credentials.folder / "known_hosts"}"']
    else:
        options += ["-o", f"UserKnownHostsFile={os.devnull}"]
    return shlex.join(["ssh", *options])


def _private_copy(source: Path, target: Path) -> Path:
    """ssh refuses a key that others may read, and one without a line break at its end."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(source.read_bytes().rstrip() + b"\n")
    return target


def _helper_command() -> str:
    return f"!{shlex.join([sys.executable, '-I', str(Path(__file__).with_name('credentials.py'))])}"


def _quote(value: str) -> str:
    """A value of git's settings file."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
