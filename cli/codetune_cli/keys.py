"""The API key for a server or gateway: of a file or the environment, never of the command line, which others see."""

import os
from collections.abc import Mapping
from pathlib import Path

from codetune_cli.errors import CliError

ENV_API_KEY = "CODETUNE_API_KEY"
HOW = f"Give one with --api-key-file FILE or in the environment variable {ENV_API_KEY}."


def read_key(file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key; the file's wins. None where neither is given.

    Raises:
        CliError: There is no key in the file, or none that a header can carry. Says nothing of what is.
    """
    if file is None:
        key, where = environment.get(ENV_API_KEY, "").strip(), ENV_API_KEY
        if not key:
            return None
    else:
        key, where = _read_file(file), str(file)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CliError(f"What {where} holds is no API key: a key has letters, digits and signs, and no blanks.")
    return key


def _read_file(file: Path) -> str:
    """The first line that is not empty."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CliError(f"The API key can't be read from {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CliError(f"The API key can't be read from {file}: it is no text.") from error
    key = next((line.strip() for line in lines if line.strip()), "")
    if not key:
        raise CliError(f"There is no API key in {file}: write one into its first line.")
    return key
