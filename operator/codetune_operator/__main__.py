"""`python -m codetune_operator`."""

import sys

from codetune_operator.main import main

if __name__ == "__main__":
    sys.exit(main())
