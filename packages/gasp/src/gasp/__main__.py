"""`python -m gasp` is the `gasp` command."""

import sys

from gasp.cli import main

sys.exit(main())
