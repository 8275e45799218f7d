"""Where the tasks lie in the space of beliefs: latent means in two or three dimensions, by family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rlcore.files import write_atomic
from taskinfer.analysis.figures import colour, panels, title_of
from taskinfer.tasks import Family

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]


class Latents(NamedTuple):
    """N beliefs of the tasks' episodes."""

    mean: Array  # (N, L)
    std: Array  # (N, L)
    family: Array  # (N,) ids
    spec: Array  # (N,)
    time: Array  # (N,) steps seen
    held_out: Array  # (N,) bool: of a task that training never saw
    component: Array  # (N,) of the prior's mixture; zeros without one
    last: Array  # (N,) bool: of an episode's last step


class Mixture(NamedTuple):
    """The prior's components; none for a unit Gaussian."""

    means: Array  # (K, L)
    variances: Array  # (K, L)


class Projection(NamedTuple):
    """A linear map to D dimensions."""

    centre: Array  # (L,)
    axes: Array  # (L, D)
    share: Array  # (D,) of the variance

    def __call__(self, points: Array) -> Array:
        """(N, L) -> (N, D)"""
        projected: Array = (points - self.centre) @ self.axes
        return projected


def pca(points: Array, dims: int) -> Projection:
    """The `dims` directions in which points (N, L) vary most; where there are fewer, the rest are 0."""
    centre = points.mean(0)
    _, size, rows = np.linalg.svd(points - centre, full_matrices=False)
    axes, share = np.zeros((points.shape[1], dims)), np.zeros(dims)
    found = min(dims, len(size))
    signs = np.sign(rows[np.arange(found), np.abs(rows[:found]).argmax(1)])  # svd leaves them open
    axes[:, :found] = (rows[:found] * signs[:, None]).T
    share[:found] = size[:found] ** 2 / max(float((size**2).sum()), 1e-12)
    return Projection(centre, axes, share)


def tsne(points: Array, dims: int, seed: int) -> Array | None:
    """(N, D) by t-SNE (van der Maaten and Hinton 2008), or None without scikit-learn or with fewer than 5 points."""
    try:
        from sklearn.manifold import TSNE  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        return None
    if len(points) < 5:
        return None
    perplexity = min(30.0, (len(points) - 1) / 3)
    model = TSNE(dims, perplexity=perplexity, init="pca", random_state=seed % 2**32)
    found: Array = model.fit_transform(points.astype(np.float64))
    return found


def draw(
    latents: Latents, places: Array, names: tuple[str, ...], ellipses: tuple[Array, Array] | None = None
) -> Figure:
    """Points (N, D), D 2 or 3: filled for training tasks, rings for held-out ones; specs beside the last beliefs.

    names: of the axes. ellipses: (K, 2) centres and (K, 2, 2) covariances of the prior's components, 2-D alone.
    """
    from matplotlib.patheffects import withStroke

    figure, axes = _canvas(places.shape[1])
    for family in np.unique(latents.family):
        own = latents.family == family
        shade = colour(int(family))
        for held_out, style in ((False, {"color": shade}), (True, {"facecolors": "none", "edgecolors": shade})):
            some = own & (latents.held_out == held_out)
            axes.scatter(*places[some].T, s=13, lw=0.8, alpha=0.55, **style)
    outline = [withStroke(linewidth=2.2, foreground="white")]  # or texts drown in points
    for i in _labelled(latents):
        axes.text(*places[i], f"{latents.spec[i]:.2g}", fontsize=7.5, weight="bold", color="0.1", path_effects=outline)
    if ellipses is not None:
        _ellipses(axes, *ellipses)
    for axis, name in zip("xyz", names):
        getattr(axes, f"set_{axis}label")(name, labelpad=4 if places.shape[1] == 2 else 10)
    _legend(figure, latents, ellipses is not None)
    return figure


def _canvas(dims: int) -> tuple[Figure, Any]:
    if dims == 2:
        figure, (axes,) = panels(1, 1, 6.4, 5.2)
        return figure, axes
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.8, 6.4), layout="constrained")
    return figure, figure.add_subplot(projection="3d")


def _labelled(latents: Latents, each: int = 6) -> list[int]:
    """Rows to label: of each family some last beliefs, evenly spaced by spec, so that texts stay apart."""
    chosen: list[int] = []
    for family in np.unique(latents.family):
        rows = np.flatnonzero((latents.family == family) & latents.last)
        rows = rows[np.argsort(latents.spec[rows])]
        chosen += [int(row) for row in rows[np.unique(np.linspace(0, len(rows) - 1, each).round().astype(int))]]
    return chosen


def _ellipses(axes: Axes, centres: Array, covariances: Array) -> None:
    """Two standard deviations of each component."""
    angle = np.linspace(0.0, 2 * np.pi, 100)
    circle = 2.0 * np.stack((np.cos(angle), np.sin(angle)))
    for centre, covariance in zip(centres, covariances):
        size, turn = np.linalg.eigh(covariance)
        outline = centre[:, None] + turn @ (np.sqrt(np.maximum(size, 0.0))[:, None] * circle)
        axes.plot(*outline, color="0.35", lw=0.8, ls="--", zorder=0)


def _legend(figure: Figure, latents: Latents, ellipses: bool) -> None:
    from matplotlib.lines import Line2D

    def dot(shade: str, fill: str, label: str) -> Line2D:
        return Line2D([], [], ls="", marker="o", color=shade, markerfacecolor=fill, label=label)

    shown = [dot(colour(int(f)), colour(int(f)), title_of(int(f))) for f in np.unique(latents.family)]
    shown += [dot("0.35", "0.35", "training task"), dot("0.35", "none", "held-out task")]
    if ellipses:
        shown.append(Line2D([], [], color="0.35", lw=0.8, ls="--", label="component of the prior, 2 std"))
    figure.legend(handles=shown, loc="outside upper center", ncols=3, frameon=False, fontsize=8)


def write_npz(path: Path, latents: Latents, mixture: Mixture, **places: Array) -> None:
    """All arrays, the projections too, atomically."""
    arrays: dict[str, Any] = {
        **latents._asdict(),
        "component_means": mixture.means,
        "component_variances": mixture.variances,
        **places,
    }
    names = np.array([Family(int(f)).name for f in latents.family])
    write_atomic(path, lambda file: np.savez_compressed(file, family_name=names, **arrays))


def write_projector(folder: Path, latents: Latents) -> tuple[Path, Path]:
    """vectors.tsv and metadata.tsv, as TensorBoard's embedding projector loads them."""
    vectors = "".join("\t".join(f"{v:.6g}" for v in row) + "\n" for row in latents.mean)
    rows = ["family\tspec\ttime\ttask\tcomponent"]
    for family, spec, time, held_out, component in zip(
        latents.family, latents.spec, latents.time, latents.held_out, latents.component
    ):
        split = "held-out" if held_out else "training"
        rows.append(f"{Family(int(family)).name}\t{spec:g}\t{time}\t{split}\t{component}")
    paths = folder / "vectors.tsv", folder / "metadata.tsv"
    for path, text in zip(paths, (vectors, "\n".join(rows) + "\n")):
        write_atomic(path, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    return paths
