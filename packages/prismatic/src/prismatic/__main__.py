"""`python -m prismatic` is the `prismatic` command."""

import sys

from prismatic.cli import main

sys.exit(main())
