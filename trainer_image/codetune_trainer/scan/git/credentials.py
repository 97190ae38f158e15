"""git's credential helper: prints user name and password out of mounted files, for one host only.

git runs it as a program of its own (`python -I credentials.py get`), so it imports nothing of ours.
"""

import os
import sys
from pathlib import Path

DEFAULT_USERNAME = "x-access-token"
"""Stands beside a token: GitHub asks for this name where it asks for any; GitLab, Gitea and others take any name."""


def read_login(folder: Path) -> tuple[str, str]:
    """User name and password out of a Secret's files: `username`, and `password` or `token`."""
    username, password = (folder / key for key in ("username", "password"))
    secret = password if password.is_file() else folder / "token"
    name = username.read_text().rstrip("\r\n") if username.is_file() else DEFAULT_USERNAME
    return name, secret.read_text().rstrip("\r\n")


def answer(asked: str, folder: Path, host: str) -> str:
    """What git is told; "" when it asks for another host than the source's own.

    Args:
        asked: git's question, `key=value` lines.
        folder: Where the Secret's files are.
        host: `protocol://host` that may get them.
    """
    fields = dict(line.partition("=")[::2] for line in asked.splitlines() if "=" in line)
    if f"{fields.get('protocol')}://{fields.get('host')}" != host:
        return ""
    username, password = read_login(folder)
    return f"username={username}\npassword={password}\n"


def main() -> int:
    """Answer `get`; git's `store` and `erase` are not ours to do."""
    if sys.argv[1:] == ["get"] and "CODETUNE_GIT_CREDENTIALS" in os.environ:
        folder = Path(os.environ["CODETUNE_GIT_CREDENTIALS"])
        sys.stdout.write(answer(sys.stdin.read(), folder, os.environ.get("CODETUNE_GIT_CREDENTIALS_FOR", "")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
