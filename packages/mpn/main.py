"""`python main.py train ...` in this folder is `mpn train ...`."""

import sys

from mpn.cli import main

if __name__ == "__main__":
    sys.exit(main())
