"""Films are read back frame by frame."""

import sys

import imageio.v2 as imageio
import numpy as np
import pytest

from rlcore import video
from rlcore.errors import EnvironmentProblem, UsageError

LEVELS = [0, 40, 90, 150, 200, 250]


def frames(height=32, width=48):
    """Grey levels in time; a red bar on the left tells rows from columns and colours from each other."""
    for level in LEVELS:
        frame = np.full((height, width, 3), level, np.uint8)
        frame[:, :8] = (255, 0, 0)
        yield frame


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_film_reads_back(tmp_path, suffix):
    path = tmp_path / "new" / f"episode{suffix}"
    video.write(path, frames(), fps=25)
    read = np.stack([frame[..., :3] for frame in imageio.mimread(path)]).astype(int)
    assert read.shape == (len(LEVELS), 32, 48, 3)
    np.testing.assert_allclose(read[:, 16, 32].T, [LEVELS] * 3, atol=6)  # yuv 4:2:0 is not exact
    np.testing.assert_allclose(read[:, 16, 3], [(255, 0, 0)] * len(LEVELS), atol=12)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no left-overs


def test_the_rate_is_kept(tmp_path):
    video.write(tmp_path / "a.gif", frames(), fps=25)
    video.write(tmp_path / "a.mp4", frames(), fps=25)
    assert imageio.get_reader(tmp_path / "a.gif").get_meta_data()["duration"] == 40  # ms a frame
    assert imageio.get_reader(tmp_path / "a.mp4").get_meta_data()["fps"] == 25


def test_odd_sizes_are_filled_up_for_mp4(tmp_path):
    video.write(tmp_path / "odd.mp4", np.stack(list(frames(31, 47))))
    assert imageio.mimread(tmp_path / "odd.mp4")[0].shape == (32, 48, 3)


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_failure_leaves_the_old_film(tmp_path, suffix):
    def broken():
        yield from frames()
        raise ZeroDivisionError("the renderer died")

    path = tmp_path / f"a{suffix}"
    video.write(path, frames())
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        video.write(path, broken())
    with pytest.raises(UsageError, match="at least one frame"):
        video.write(path, [])
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"\.gif or \.mp4"):
        video.write(tmp_path / "a.avi", frames())
    monkeypatch.setitem(sys.modules, "imageio.v2", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'rlcore\[video\]'"):
        video.write(tmp_path / "a.mp4", frames())
