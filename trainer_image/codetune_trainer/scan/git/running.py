"""Runs git to its end: in the world that it is given, in time, and with every helper that it started."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence

from codetune_trainer.errors import SourceUnavailable

ASK_SECONDS = 180
FETCH_SECONDS = 3 * 3600
_ERROR_CHARACTERS = 600


class GitError(Exception):
    """git ended with an error; the text is what it said."""


class Damaged(Exception):
    """What a mirror holds can't be read."""


class OtherObjectFormat(Exception):
    """A repository names its objects by another hash function than the mirror."""


def find_git() -> str:
    """The git program. Raises: FileNotFoundError when the image has none."""
    git = shutil.which("git")
    if git is None:
        raise FileNotFoundError("This image has no git program on its PATH.")
    return git


def run_git(arguments: Sequence[str], environment: Mapping[str, str], seconds: float, data: bytes = b"") -> str:
    """Run git to its end and return its output.

    Args:
        arguments: What follows `git` on its command line.
        environment: Everything that it gets of the world.
        seconds: How long it may take.
        data: What it reads.

    Raises:
        GitError: It ended with an error.
        SourceUnavailable: It took too long.
    """
    with subprocess.Popen(
        [find_git(), *arguments],
        env=dict(environment),
        stdin=subprocess.PIPE if data else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        start_new_session=True,  # so that its helpers (ssh, index-pack) end with it
    ) as process:
        try:
            output, said = process.communicate(data or None, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            message = f"git {arguments[1] if len(arguments) > 1 else ''} did not end within {seconds:.0f} s."
            raise SourceUnavailable(message, "Check that the server answers; the scan is tried again.") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise GitError(said.decode(errors="replace").strip() or f"git ended with {process.returncode}")
    return output.decode(errors="backslashreplace")


def shorten(said: str) -> str:
    """git's words in one line, without control characters, bounded."""
    left_out = ("hint:", "warning:", "@@@")
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(left_out)]
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in " ".join(lines)).split())
    return text if len(text) <= _ERROR_CHARACTERS else text[:_ERROR_CHARACTERS] + "…"
