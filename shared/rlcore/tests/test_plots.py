"""What the figures hold is checked against the numbers that went in; that files open is checked too."""

import json
import sys

import numpy as np
import pytest
from scipy import stats

from rlcore import plots
from rlcore.errors import DataError, UsageError


def write_run(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rows_of(returns, kind="eval", key="return_mean", every=10):
    return [{"kind": kind, "step": i * every, key: value} for i, value in enumerate(returns)]


def line(axes, label):
    (found,) = [x for x in axes.lines if x.get_label().startswith(label)]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def test_only_an_unfinished_last_line_is_forgiven(tmp_path):
    run = write_run(tmp_path, rows_of([1, 2]))
    path = run / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind": "eval", "st')
    assert plots.read_metrics(run) == rows_of([1, 2])
    for damage in (b'{"kind": "ev\n', b"[]\n", b"7\n", b"\n", b"\xff\xfe\n", b'{"kind": "eval"}\n'):
        path.write_bytes(whole + damage + whole)
        with pytest.raises(DataError, match=r"metrics\.jsonl:3 "):
            plots.read_metrics(run)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        plots.read_metrics(tmp_path / "elsewhere")


def test_the_line_is_the_iqm_and_the_band_holds_the_quantiles():
    table = np.random.default_rng(0).normal(size=(8, 5)).cumsum(1)
    steps = np.arange(0, 50, 10)
    found, middle, low, high = plots.middle_and_band([(steps, values) for values in table])
    np.testing.assert_array_equal(found, steps)
    np.testing.assert_allclose(middle, stats.trim_mean(table, 0.25, axis=0))
    for k in range(len(steps)):
        assert table[:, k].min() <= low[k] <= middle[k] <= high[k] <= table[:, k].max()
        theirs = stats.bootstrap(
            (table[:, k],), lambda x, axis: stats.trim_mean(x, 0.25, axis), method="percentile", rng=0
        ).confidence_interval
        np.testing.assert_allclose([low[k], high[k]], theirs, atol=0.15 * table[:, k].std())


def test_runs_evaluated_at_other_steps_are_interpolated_where_all_have_been():
    slow = np.arange(0, 30, 10), np.array([0, 10, 20])
    fast = np.arange(0, 75, 15), np.array([0, 100, 200, 300, 400])  # goes on to step 60
    steps, middle, *_ = plots.middle_and_band([slow, fast])
    np.testing.assert_array_equal(steps, [0, 10, 15, 20])
    np.testing.assert_allclose(middle, [0, (10 + 200 / 3) / 2, (15 + 100) / 2, (20 + 400 / 3) / 2])


def test_panels_show_what_there_is(tmp_path):
    rows = rows_of([1, 2, 3]) + rows_of(range(7, 307), "train", "loss", 1) + rows_of([None, 5], "train", "return_mean")
    run = write_run(tmp_path / "my_run", rows)
    wanted = [
        ("Greedy", ["return_mean"], "eval"),
        ("Nothing", ["entropy"], "train"),
        ("Both", ["loss", "return_mean"], "train"),
    ]
    figure = plots.training_panels(run, wanted)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["Greedy", "Both"]
    np.testing.assert_array_equal(line(shown[0], "return per episode"), [[0, 10, 20], [1, 2, 3]])
    smooth = line(shown[1], "loss")[1]
    np.testing.assert_allclose(smooth[5:-5], np.arange(12, 302))  # a mean keeps a straight line
    np.testing.assert_allclose([smooth[0], smooth[-1]], [7 + 15 / 11, 306 - 15 / 11])  # 5 more of the edge on its side
    np.testing.assert_array_equal(line(shown[1], "return per episode"), [[10], [5]])  # null is no number
    assert {axes.get_xlim() for axes in shown} == {(0, 299)}
    assert shown[1].get_legend() is not None
    with pytest.raises(DataError, match="no metrics to plot"):
        plots.training_panels(write_run(tmp_path / "new", []), wanted)


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_are_saved_whole(tmp_path, suffix, magic):
    figure = plots.training_panels(write_run(tmp_path / "r", rows_of([1, 2])), [("Greedy", ["return_mean"], "eval")])
    path = tmp_path / "plots" / f"curve.{suffix}"
    plots.save(figure, path)
    assert path.read_bytes().startswith(magic)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with pytest.raises(UsageError, match=r"use \.png"):
        plots.save(figure, path.with_suffix(".doc"))


def test_no_global_figure_is_left_behind(tmp_path):
    plots.training_panels(write_run(tmp_path, rows_of([1, 2])), [("Greedy", ["return_mean"], "eval")])
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
