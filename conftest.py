"""Settings of all tests: how long an example of hypothesis takes is no finding. Machines are shared."""

from hypothesis import settings

settings.register_profile("quintet", deadline=None)
settings.load_profile("quintet")
