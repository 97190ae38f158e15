"""`python -m codetune_cli`, the same as `kubectl-codetune`."""

import sys

from codetune_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
