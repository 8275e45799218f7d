"""Settings of all tests: how long an example of hypothesis takes is no finding. Machines are shared."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent / "tests"))  # stopped_runs.py is for the packages' tests, too
settings.register_profile("quintet", deadline=None)
settings.load_profile("quintet")
