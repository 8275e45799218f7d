"""`python -m collective` is the `collective` command."""

import sys

from collective.cli import main

sys.exit(main())
