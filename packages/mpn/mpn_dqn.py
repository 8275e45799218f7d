"""`from mpn_dqn import MPNDQN`, for scripts that run in this folder; elsewhere, `from mpn import MPNDQN`."""

from mpn.model import MPNDQN, DoubleMPNDQN

__all__ = ["MPNDQN", "DoubleMPNDQN"]
