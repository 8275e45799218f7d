"""Draws docs/images/dpmm.png: seven slanted clusters as diagonal and as full covariances see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rlblocks.dpmm import DPMixture
from rlblocks.plots import plot_components


def main() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice(7, 4_000, p=rng.dirichlet(np.full(7, 4.0)))
    shapes, centres = rng.normal(size=(7, 2, 2)) * 0.7, rng.uniform(-7, 7, (7, 2))
    x = centres[labels] + np.einsum("nij,nj->ni", shapes[labels], rng.normal(size=(4_000, 2)))
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    for axes, covariance in zip(figure.subplots(1, 2, sharey=True), ("diag", "full")):
        mixture = DPMixture(2, covariance=covariance)
        report = mixture.fit(x)
        plot_components(axes, mixture, x)
        axes.set_title(f"{covariance}: {report.num_components} components, {report.loss:.3f} nats a value")
    figure.savefig(Path(__file__).parent / "images" / "dpmm.png", dpi=110)


if __name__ == "__main__":
    main()
