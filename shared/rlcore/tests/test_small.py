"""Seeding, devices, nets, files and provenance: the small rooms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcore import device, files, nets, provenance, seeding
from rlcore.errors import DataError, EnvironmentProblem, QuintetWarning, UsageError


@given(st.integers(0, 2**62), st.integers(0, 100), st.integers(0, 100))
def test_an_episode_s_seed_is_its_three_numbers_hash(seed: int, env: int, episode: int):
    value = seeding.episode_seed(seed, env, episode)
    assert value == seeding.episode_seed(seed, env, episode)
    assert 0 <= value < 2**31
    assert value != seeding.episode_seed(seed, env + 1, episode)
    assert value != seeding.episode_seed(seed, env, episode + 1)


def test_streams_are_named_and_independent():
    draws = {name: seeding.numpy_generator(7, name).random(4).tolist() for name in ("a", "b", "c")}
    assert len({str(d) for d in draws.values()}) == 3
    assert seeding.numpy_generator(7, "b").random(4).tolist() == draws["b"]  # whatever was drawn from a and c
    assert seeding.derive(1, "x", 2) != seeding.derive(1, "x", 3) != seeding.derive(2, "x", 2)


def test_a_numpy_generator_survives_json():
    rng = seeding.numpy_generator(0, "x")
    rng.random(3)
    state = json.loads(json.dumps(seeding.numpy_state(rng)))
    expected = rng.random(5)
    other = np.random.default_rng(1)
    seeding.set_numpy_state(other, state)
    np.testing.assert_array_equal(other.random(5), expected)


def test_torch_state_round_trip_and_that_of_another_kind_of_device():
    """A GPU's generator has 16 bytes of state, a CPU's 5,056: a run that has moved goes on with its own."""
    import torch

    one, two = seeding.torch_generator(1), seeding.torch_generator(2)
    torch.rand(3, generator=one)
    seeding.set_torch_state(two, one.get_state())
    assert torch.equal(torch.rand(4, generator=one), torch.rand(4, generator=two))
    before = two.get_state()
    seeding.set_torch_state(two, torch.zeros(16, dtype=torch.uint8))
    assert torch.equal(two.get_state(), before)


def test_global_generators_come_back():
    import random

    seeding.seed_globals(3)
    state = seeding.global_state()
    first = (random.random(), float(torch.rand(())), np.random.random())  # noqa: NPY002
    seeding.set_global_state(state)
    assert (random.random(), float(torch.rand(())), np.random.random()) == first  # noqa: NPY002
    seeding.seed_globals(3)
    assert (random.random(), float(torch.rand(())), np.random.random()) == first  # noqa: NPY002


def test_devices_are_resolved_or_refused():
    assert device.resolve("cpu") == torch.device("cpu")
    assert device.resolve("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match="--device toaster"):
        device.resolve("toaster")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no GPU"):
            device.resolve("cuda")


def test_threads_beyond_the_cores_are_warned_of():
    with pytest.warns(QuintetWarning, match="--threads 1000"):
        device.set_threads(1000)
    device.set_threads(1)
    assert torch.get_num_threads() == 1


def test_compile_if_leaves_alone_or_says_why_not(monkeypatch: pytest.MonkeyPatch):
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    assert device.compile_if(False, double) is double
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(QuintetWarning, match=r"C\+\+ compiler"):
        assert device.compile_if(True, double) is double


def test_mlp_has_no_activation_at_its_end():
    net = nets.mlp([3, 5, 2])
    assert [type(layer).__name__ for layer in net] == ["Linear", "ReLU", "Linear"]
    assert nets.count_parameters(net) == 3 * 5 + 5 + 5 * 2 + 2


@given(st.floats(0, 1))
def test_polyak_is_a_weighted_mean(tau: float):
    target, source = [torch.tensor([1.0, 2.0])], [torch.tensor([3.0, -2.0])]
    expected = (1 - tau) * target[0] + tau * source[0]
    nets.polyak_(target, source, tau)
    torch.testing.assert_close(target[0], expected)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "x"
    files.write_json(path, {"a": 1})

    def fail(file: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        files.write_atomic(path, fail)
    assert caught.value.filename == str(path)
    assert files.read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_json_errors_name_the_file(tmp_path: Path):
    (tmp_path / "x").write_text("{")
    for name in ("x", "absent"):
        with pytest.raises(DataError, match=name):
            files.read_json(tmp_path / name)
    with pytest.raises(ValueError, match=r"nan|NaN|range"):
        files.write_json(tmp_path / "y", float("nan"))


def test_a_failed_file_operation_becomes_one_line(tmp_path: Path):
    def fail() -> None:
        with files.explained(tmp_path):
            (tmp_path / "absent" / "x").write_text("")

    with pytest.raises(EnvironmentProblem, match=r"cannot write .*absent"):
        fail()


def test_provenance_tells_versions_machine_and_commit():
    facts = provenance.describe_environment("rlcore")
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["cores"] >= 1
    assert facts["git"] is None or len(facts["git"]["commit"]) == 40


def test_near_names_help(tmp_path: Path):
    for name in ("brave-otter-001", "calm-reef-002"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert "brave-otter-001" in provenance.near(tmp_path / "brave-oter-001")
    assert "holds" in provenance.near(tmp_path / "zzz")
