"""The latent space in the plane: components of the mixture, encoded windows, N(0, I)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gasp.analysis.figures import GREY, Array, colours, panels
from rlcore.errors import EnvironmentProblem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = {"tsne": "scikit-learn", "umap": "umap-learn"}


class Cloud(NamedTuple):
    """Skills in the plane."""

    place: Array  # (N, 2)
    component: Array  # (N,)


class Projection(NamedTuple):
    """A linear map to the plane."""

    centre: Array  # (Z,)
    axes: Array  # (Z, 2)
    share: Array  # (2,) of the variance

    def __call__(self, points: Array) -> Array:
        """(N, Z) -> (N, 2)"""
        found: Array = (points - self.centre) @ self.axes
        return found

    def covariance(self, variances: Array) -> Array:
        """(K, 2, 2) what diagonal covariances (K, Z) become."""
        found: Array = np.einsum("zd,kz,ze->kde", self.axes, variances, self.axes)
        return found


def pca(points: Array) -> Projection:
    """The two directions in which points (N, Z) vary most; where there is only one, the other is 0."""
    centre = points.mean(0)
    _, size, rows = np.linalg.svd(points - centre, full_matrices=False)
    axes, share = np.zeros((points.shape[1], 2)), np.zeros(2)
    found = min(2, len(size))
    signs = np.sign(rows[np.arange(found), np.abs(rows[:found]).argmax(1)])  # svd leaves them open
    axes[:, :found] = (rows[:found] * signs[:, None]).T
    share[:found] = size[:found] ** 2 / max(float((size**2).sum()), 1e-12)
    return Projection(centre, axes, share)


def embed(method: str, clouds: Sequence[Array], seed: int) -> list[Array]:
    """t-SNE or UMAP of all clouds (N_i, Z) together, so that they share one plane: (N_i, 2) each.

    Raises: EnvironmentProblem naming the package that is missing.
    """
    points = np.concatenate(clouds).astype(np.float64)
    try:
        if method == "tsne":
            from sklearn.manifold import TSNE  # type: ignore[import-untyped,import-not-found,unused-ignore]

            places = TSNE(2, init="pca", perplexity=min(30.0, (len(points) - 1) / 3), random_state=seed % 2**32)
        else:
            from umap import UMAP  # type: ignore[import-untyped,import-not-found,unused-ignore]

            places = UMAP(n_components=2, random_state=seed % 2**32)
    except ImportError:
        package = NEEDS[method]
        raise EnvironmentProblem(f"--proj {method} needs pip install {package}; --proj pca needs nothing") from None
    found = np.asarray(places.fit_transform(points))
    return np.split(found, np.cumsum([len(cloud) for cloud in clouds])[:-1])


def draw_mixture(
    sampled: Cloud, encoded: Cloud, weights: Array, names: tuple[str, str], ellipses: tuple[Array, Array] | None = None
) -> Figure:
    """Left, skills drawn from the components, which are numbered; right, encoded windows by their component.

    ellipses: (K, 2) centres and (K, 2, 2) covariances, where the projection is linear.
    """
    figure, (left, right) = panels(2, 2, 5.2, 4.8)
    shades = colours(len(weights))
    for axes, cloud, title in ((left, sampled, "skills drawn from the mixture"), (right, encoded, "encoded windows")):
        shade = [shades[k] for k in cloud.component]
        axes.scatter(cloud.place[:, 0], cloud.place[:, 1], s=5, c=shade, alpha=0.45, lw=0, rasterized=True)
        if ellipses is not None:
            _outlines(axes, *ellipses, shades)
        _numbers(axes, cloud, shades)
        axes.set(title=f"{len(cloud.place):,} {title}", xlabel=names[0], ylabel=names[1])
    _same_frame(left, right)
    dashed = "" if ellipses is None else " (dashed: 2 standard deviations)"
    figure.suptitle(f"Dirichlet-process mixture, {len(weights)} components{dashed}")
    return figure


def draw_gaussian(standard: Array, encoded: Cloud, names: tuple[str, str], frame: Array | None = None) -> Figure:
    """Left, skills drawn from N(0, I); right, encoded windows over them. frame: (N, 2) places to keep in view."""
    figure, (left, right) = panels(2, 2, 5.2, 4.8)
    left.scatter(standard[:, 0], standard[:, 1], s=5, color="0.45", alpha=0.45, lw=0, rasterized=True)
    right.scatter(standard[:, 0], standard[:, 1], s=5, color=GREY, alpha=0.35, lw=0, rasterized=True)
    shades = colours(int(encoded.component.max()) + 1)
    right.scatter(
        encoded.place[:, 0],
        encoded.place[:, 1],
        s=5,
        c=[shades[k] for k in encoded.component],
        alpha=0.45,
        lw=0,
        rasterized=True,
    )
    for axes, title in ((left, f"{len(standard):,} skills drawn from N(0, I)"), (right, "encoded windows over them")):
        axes.set(title=title, xlabel=names[0], ylabel=names[1])
        if frame is not None:
            axes.plot(*np.stack((frame.min(0), frame.max(0))).T, ls="", marker="")  # the view of the other figure
    _same_frame(left, right)
    figure.suptitle("N(0, I), the latent prior of a Gaussian VAE")
    return figure


def draw_inference(cloud: Array, windows: Sequence[Array], names: tuple[str, str]) -> Figure:
    """Skills (S, 2) of each of n windows, coloured, in the latent prior's cloud (N, 2), grey."""
    figure, (axes,) = panels(1, 1, 6.0, 5.4)
    axes.scatter(cloud[:, 0], cloud[:, 1], s=6, color=GREY, alpha=0.5, lw=0, rasterized=True, label="latent prior")
    for number, (shade, places) in enumerate(zip(colours(len(windows)), windows)):
        axes.scatter(places[:, 0], places[:, 1], s=16, color=shade, alpha=0.75, lw=0)
        _tag(axes, places.mean(0), str(number), shade)
    title = f"{len(windows)} windows, {len(windows[0])} skills drawn from q(z|s,a) of each"
    axes.set(title=title, xlabel=names[0], ylabel=names[1])
    return figure


def draw_means(cloud: Array, encoder: Array, prior: Array, centroids: Array, names: tuple[str, str]) -> Figure:
    """Means (n, 2) of q(z|s,a) and of p(z|s_0), joined window by window, and centroids (K, 2) of the components."""
    figure, (axes,) = panels(1, 1, 6.0, 5.4)
    axes.scatter(cloud[:, 0], cloud[:, 1], s=6, color=GREY, alpha=0.35, lw=0, rasterized=True)
    for start, end in zip(prior, encoder):
        axes.plot(*np.stack((start, end)).T, color="0.6", lw=0.6, zorder=1)
    blue, red = colours(2)
    axes.scatter(encoder[:, 0], encoder[:, 1], s=26, color=blue, label="mean of q(z|s,a)", zorder=2)
    axes.scatter(prior[:, 0], prior[:, 1], s=26, color=red, marker="s", label="mean of p(z|s0)", zorder=2)
    if len(centroids):
        axes.scatter(
            centroids[:, 0], centroids[:, 1], s=70, color="black", marker="x", lw=1.6, label="component", zorder=3
        )
        for k, place in enumerate(centroids):
            axes.annotate(str(k), tuple(place), xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.set(xlabel=names[0], ylabel=names[1])
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def _outlines(axes: Axes, centres: Array, covariances: Array, shades: Sequence[str]) -> None:
    angle = np.linspace(0.0, 2 * np.pi, 100)
    circle = 2.0 * np.stack((np.cos(angle), np.sin(angle)))
    for centre, covariance, shade in zip(centres, covariances, shades):
        size, turn = np.linalg.eigh(covariance)
        outline = centre[:, None] + turn @ (np.sqrt(np.maximum(size, 0.0))[:, None] * circle)
        axes.plot(*outline, color=shade, lw=1.1, ls="--")


def _numbers(axes: Axes, cloud: Cloud, shades: Sequence[str]) -> None:
    """Each component's number at the middle of its points."""
    for k in np.unique(cloud.component):
        _tag(axes, np.median(cloud.place[cloud.component == k], 0), str(k), shades[k])


def _tag(axes: Axes, place: Array, text: str, shade: str) -> None:
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": shade, "alpha": 0.85}
    axes.annotate(text, tuple(place), ha="center", va="center", fontsize=8, bbox=box)


def _same_frame(left: Axes, right: Axes) -> None:
    low = np.minimum(*[np.array([axes.get_xlim()[0], axes.get_ylim()[0]]) for axes in (left, right)])
    high = np.maximum(*[np.array([axes.get_xlim()[1], axes.get_ylim()[1]]) for axes in (left, right)])
    for axes in (left, right):
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def axis_names(projection: Projection | None, method: str) -> tuple[str, str]:
    """PC 1 (40 % of the variance), or t-SNE 1."""
    if projection is not None:
        first, second = (f"PC {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(projection.share))
        return first, second
    called = {"tsne": "t-SNE", "umap": "UMAP"}[method]
    return f"{called} 1", f"{called} 2"
