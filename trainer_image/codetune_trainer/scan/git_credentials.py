"""git's credential helper: prints user name and password out of mounted files, for one host only.

git runs it as a program of its own (`python -I git_credentials.py get`), so it imports nothing of ours.
"""

import os
import sys
from pathlib import Path


def answer(asked: str, folder: Path, host: str) -> str:
    """What git is told; "" when it asks for another host than the source's own.

    Args:
        asked: git's question, `key=value` lines.
        folder: Where `username` and `password` are.
        host: `protocol://host` that may get them.
    """
    fields = dict(line.partition("=")[::2] for line in asked.splitlines() if "=" in line)
    if f"{fields.get('protocol')}://{fields.get('host')}" != host:
        return ""
    username, password = ((folder / key).read_text().rstrip("\r\n") for key in ("username", "password"))
    return f"username={username}\npassword={password}\n"


def main() -> int:
    """Answer `get`; git's `store` and `erase` are not ours to do."""
    if sys.argv[1:] == ["get"] and "CODETUNE_GIT_CREDENTIALS" in os.environ:
        folder = Path(os.environ["CODETUNE_GIT_CREDENTIALS"])
        sys.stdout.write(answer(sys.stdin.read(), folder, os.environ.get("CODETUNE_GIT_CREDENTIALS_FOR", "")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
