"""`python -m taskinfer` is the `taskinfer` command."""

import sys

from taskinfer.cli import main

sys.exit(main())
