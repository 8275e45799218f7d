"""Recurrent Q-learning whose memory is a Hebbian matrix: `MPNLayer`, `MPNDQN` and the `mpn` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "1.0.0"
__all__ = ["MPNDQN", "DoubleMPNDQN", "MPNLayer", "__version__"]

if TYPE_CHECKING:
    from mpn.model import MPNDQN, DoubleMPNDQN
    from mpn.plastic import MPNLayer

_HOMES = {"MPNDQN": "mpn.model", "DoubleMPNDQN": "mpn.model", "MPNLayer": "mpn.plastic"}


def __getattr__(name: str) -> Any:
    """The public classes, imported when first used: `mpn --help` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mpn' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
