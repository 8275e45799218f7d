from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from rlblocks.dpmm import DPMixture
from rlblocks.plots import plot_components


def test_each_component_has_its_ellipses_where_it_is():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(300, 3)) * (1.0, 0.3, 1.0), rng.normal(size=(100, 3)) * 0.3 + (6, 0, 0)])
    mixture = DPMixture(3, covariance="full")
    mixture.fit(x)
    axes = Figure().subplots()
    plot_components(axes, mixture, torch.as_tensor(x), dims=(1, 0))
    ellipses = axes.patches
    assert len(ellipses) == 4  # two components, one and two sigmas
    np.testing.assert_allclose(ellipses[0].center, mixture.means[0, [1, 0]].numpy())
    assert ellipses[1].width == 2 * ellipses[0].width
    assert ellipses[0].width > 2 * ellipses[0].height  # the long axis of the first is dimension 0 ...
    assert abs(abs(ellipses[0].angle) - 90) < 10  # ... which is drawn upwards
    assert [t.get_text() for t in axes.texts] == ["0", "1"]
    assert axes.get_xlabel() == "dimension 1"
