"""What Meta-World's tasks and scripted experts spend their time in, done faster, to the same last bit.

Meta-World's functions stay as they are installed; `collective.envs.rebind` makes copies of them that find these
stand-ins where the originals find numpy, scipy, `reward_utils` and so on. A stand-in does the original's operations in
the original's order, on the few kinds of arguments that occur, and hands everything else to the original. Types count,
too: a Python float times a float32 is a float32, a numpy float64 times it is not. Imports Meta-World.
"""

from __future__ import annotations

from math import sqrt
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
from metaworld.utils import reward_utils
from scipy.spatial.transform import Rotation as SlowRotation  # type: ignore[import-untyped]

Array = np.ndarray[Any, Any]
ndarray, float64, DOUBLE = np.ndarray, np.float64, np.dtype(np.float64)
LONG_TAIL = 3.0  # sqrt(1 / value_at_margin - 1) at the default 0.1


def norm(x: Any, ord: Any = None, *args: Any, **options: Any) -> Any:
    """np.linalg.norm of a vector of float64, or of one: the root of its product with itself, as there."""
    kind, plain = type(x), (ord is None or ord == 2) and not args and not options
    if plain and kind is ndarray and x.dtype is DOUBLE and x.ndim == 1:
        return float64(sqrt(x.dot(x)))
    if plain and kind is float64 and ord is None:
        return float64(sqrt(x * x))
    return np.linalg.norm(x, ord, *args, **options)


def clip(x: Any, low: Any, high: Any, **options: Any) -> Any:
    """np.clip of one number between two others."""
    if type(x) is np.float32 and type(low) in (int, float) and type(high) in (int, float) and not options:
        return x if low <= x <= high or x != x else np.float32(low if x < low else high)
    return np.clip(x, low, high, **options)


def tolerance(
    x: Any, bounds: Any = (0.0, 0.0), margin: Any = 0.0, sigmoid: Any = "gaussian", value_at_margin: float = 0.1
) -> Any:
    """`reward_utils.tolerance` of one number with a long tail."""
    lower, upper = bounds
    kind = type(x)
    if (kind is float or kind is float64) and sigmoid == "long_tail" and value_at_margin == 0.1:
        if lower <= x <= upper and margin >= 0:
            return 1.0
        if margin > 0 and lower <= upper:
            d = float((lower - x if x < lower else x - upper) / margin)
            if -1e100 < d < 1e100:
                return 1 / ((d * LONG_TAIL) ** 2 + 1)
    return reward_utils.tolerance(x, bounds, margin, sigmoid, value_at_margin)


class Rotation:
    """scipy's, of one matrix, and only to become a quaternion (x, y, z, w)."""

    def __init__(self, matrix: Array) -> None:
        self.matrix = matrix

    @classmethod
    def from_matrix(cls, matrix: Array) -> Rotation:
        """Of an orthogonal (3, 3) matrix, as a simulator's are."""
        return cls(matrix)

    def as_quat(self) -> Array:
        """From the largest of the four squared components, as scipy does (Shepperd 1978)."""
        (a, b, c), (d, e, f), (g, h, i) = self.matrix.tolist()
        trace = a + e + i
        if trace > a and trace > e and trace > i:
            x, y, z, w = h - f, c - g, d - b, 1 + trace
        elif a >= e and a >= i:
            x, y, z, w = 1 - trace + 2 * a, d + b, g + c, h - f
        elif e >= i:
            x, y, z, w = d + b, 1 - trace + 2 * e, h + f, c - g
        elif i > e:
            x, y, z, w = g + c, h + f, 1 - trace + 2 * i, d - b
        else:  # NaN
            return np.asarray(SlowRotation.from_matrix(self.matrix).as_quat())
        length = sqrt(x * x + y * y + z * z + w * w)
        return np.array((x / length, y / length, z / length, w / length))


class Named:
    """One body, geom or site, its numbers looked up once. What is not here comes from mujoco's own accessor."""

    def __init__(self, accessor: Any, kind: str, data: Any) -> None:
        self.id: int = accessor.id
        self.xpos: Array = getattr(data, f"{kind}xpos")[self.id]  # views: they show what the simulator does
        self.xmat: Array = getattr(data, f"{kind}xmat")[self.id]
        if kind == "":
            self.xquat: Array = data.xquat[self.id]
        self._accessor = accessor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accessor, name)


class Shown:
    """mujoco.MjData whose things are found by name without a search each time. `raw` is the real one."""

    def __init__(self, data: Any) -> None:
        self.raw = data
        self._body: dict[str, Named] = {}
        self._geom: dict[str, Named] = {}
        self._site: dict[str, Named] = {}
        self._joint: dict[str, Any] = {}

    def body(self, name: str) -> Named:
        if name not in self._body:
            self._body[name] = Named(self.raw.body(name), "", self.raw)
        return self._body[name]

    def geom(self, name: str) -> Named:
        if name not in self._geom:
            self._geom[name] = Named(self.raw.geom(name), "geom_", self.raw)
        return self._geom[name]

    def site(self, name: str) -> Named:
        if name not in self._site:
            self._site[name] = Named(self.raw.site(name), "site_", self.raw)
        return self._site[name]

    def joint(self, name: str) -> Any:
        if name not in self._joint:
            self._joint[name] = self.raw.joint(name)
        return self._joint[name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def _raw(function: Any) -> Any:
    """A function of mujoco (model, data) that takes a `Shown`, too."""
    return lambda model, data, *args, **options: function(model, getattr(data, "raw", data), *args, **options)


NUMPY = SimpleNamespace(**{
    **vars(np), "clip": clip, "linalg": SimpleNamespace(**{**vars(np.linalg), "norm": norm}),
})  # fmt: skip
GLOBALS: dict[str, Any] = {
    "np": NUMPY,
    "mujoco": SimpleNamespace(**{
        **vars(mujoco), "mj_forward": _raw(mujoco.mj_forward), "mj_step": _raw(mujoco.mj_step),
    }),
    "reward_utils": SimpleNamespace(**{**vars(reward_utils), "tolerance": tolerance}),
    "tolerance": tolerance,
    "Rotation": Rotation,
}  # fmt: skip
