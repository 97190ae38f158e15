"""Command line of the server image: `python -m codetune_server serve -- <vLLM arguments>`."""

import argparse
import sys
from collections.abc import Sequence

from codetune_server import __version__
from codetune_server.serving import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code (`serve` does not return)."""
    parser = argparse.ArgumentParser(prog="codetune-server", description=__doc__)
    parser.add_argument("--version", action="version", version=f"codetune-server {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="become vLLM's OpenAI-compatible server with the adapter middleware")
    serving.add_argument("arguments", nargs=argparse.REMAINDER, help="-- followed by vLLM's own arguments")
    given = parser.parse_args(arguments).arguments
    serve(given[1:] if given[:1] == ["--"] else given)


if __name__ == "__main__":
    sys.exit(main())
