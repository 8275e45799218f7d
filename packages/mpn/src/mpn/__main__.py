"""`python -m mpn` is the `mpn` command."""

import sys

from mpn.cli import main

sys.exit(main())
