"""The tasks: names, sizes, seeds, and several of them behind one vector env."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from prismatic import envs
from prismatic.config import TrainConfig
from prismatic.envs import dmc
from prismatic.replay import TaskReplay, widths_of
from rlcore.errors import EnvironmentProblem, UsageError

has_dmc = pytest.mark.skipif(importlib.util.find_spec("dm_control") is None, reason="needs the extra dmc")


SIZES = {"toy-reach": (6, 2, 50), "Pendulum-v1": (3, 1, 200)}
CONTROL = {
    "cartpole-balance": (5, 1, 500), "cup-catch": (8, 2, 500), "pendulum-swingup": (3, 1, 500),
    "reacher-easy": (6, 2, 500), "humanoid-run": (67, 21, 500), "walker-walk": (24, 6, 500),
}  # fmt: skip


@pytest.mark.parametrize("task", [*SIZES, *(pytest.param(name, marks=has_dmc) for name in CONTROL)])
def test_sizes(task: str):
    spec = envs.describe(task)
    assert (spec.obs_dim, spec.action_dim, spec.episode_length) == (SIZES | CONTROL)[task]
    assert spec.episodic == (task == "Pendulum-v1")  # nothing tells whether a Gymnasium env can terminate


def test_names_and_sets():
    assert envs.env_id("cartpole-balance-v0") == envs.env_id("cartpole-balance")
    assert envs.expand(["mt4", "dog-run"])[-2:] == ("cup-catch", "dog-run")
    with pytest.raises(UsageError, match="cup-catch comes twice"):
        envs.expand(["mt4", "cup-catch"])
    with pytest.raises(UsageError, match="did you mean cartpole-balance"):
        envs.env_id("cartpol-balanc")
    with pytest.raises(UsageError, match="prismatic envs"):
        envs.env_id("zzzzzzzz")


def test_discrete_actions_are_refused():
    with pytest.raises(EnvironmentProblem, match="a bounded Box is needed"):
        envs.describe("CartPole-v1")


OWN = """
import gymnasium, numpy as np
from gymnasium.spaces import Box
class Bare(gymnasium.Env):
    observation_space = Box(-1.0, 1.0, (3,), np.float32)
    def __init__(self, shape): self.action_space = Box(-1.0, 1.0, shape, np.float32)
def limited(): return gymnasium.wrappers.TimeLimit(Bare((2,)), 20)
def endless(): return Bare((2,))
def square(): return gymnasium.wrappers.TimeLimit(Bare((2, 3)), 20)
"""


def test_envs_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "prismatic_own_envs.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = envs.describe("prismatic_own_envs:limited")
    assert (spec.obs_dim, spec.action_dim, spec.episode_length) == (3, 2, 20)
    with pytest.raises(EnvironmentProblem, match="no time limit"):
        envs.describe("prismatic_own_envs:endless")
    with pytest.raises(EnvironmentProblem, match="1-D Boxes only"):
        envs.describe("prismatic_own_envs:square")


def test_actions_are_always_rescaled():
    """Pendulum-v1 takes torques in [-2, 2]: 1 must mean 2 (defect D14)."""
    vec = envs.make([envs.describe("Pendulum-v1")], 1, seed=0)
    vec.reset()
    inner = vec.parts[0].envs[0].unwrapped  # type: ignore[attr-defined]
    vec.step(np.ones((1, 1), np.float32))
    assert inner.last_u == pytest.approx(2.0)


@has_dmc
def test_the_list_of_control_tasks_is_the_suite_s():
    suite = dmc.load_suite()
    theirs = {f"{'cup' if domain == 'ball_in_cup' else domain}-{task}" for domain, task in suite.ALL_TASKS}
    assert set(dmc.TASKS) == {task for task in theirs if not task.startswith("lqr")}


@has_dmc
def test_control_repeats_actions_and_only_truncates():
    vec = envs.make([envs.describe("cartpole-balance")], 1, seed=0)
    vec.reset()
    control = vec.parts[0].envs[0].unwrapped  # type: ignore[attr-defined]
    moved = [vec.step(np.zeros((1, 1), np.float32)) and vec.truncated[0] for _ in range(500)]
    assert moved.index(True) == 499
    assert not vec.terminated[0]
    assert control.env.physics.time() < 0.1  # the next episode has begun
    vec.step(np.zeros((1, 1), np.float32))
    assert control.env.physics.time() == pytest.approx(0.02, abs=1e-6)  # two steps of 0.01 s


@pytest.mark.parametrize("task", ["toy-cross", pytest.param("cup-catch", marks=has_dmc)])
def test_a_seed_decides_everything_and_a_snapshot_replays(task: str):
    spec = envs.describe(task)
    one, two, other = (envs.make([spec], 2, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.reset(), two.reset())
    assert not np.array_equal(one.current_obs, other.reset())
    for _ in range(70):
        one.step(one.sample())
    two.load_state_dict(one.state_dict())
    assert np.array_equal(one.current_obs, two.current_obs)
    action = one.sample()
    assert np.array_equal(action, two.sample())
    assert np.array_equal(one.step(action).obs, two.step(action).obs)


def test_tasks_of_different_sizes_are_padded():
    specs = [envs.describe("toy-reach"), envs.describe("Pendulum-v1")]
    vec = envs.make(specs, 2, seed=0)
    obs = vec.reset()
    assert (obs.shape, widths_of(vec)) == ((4, 6), (6, 2))
    assert vec.task_id.tolist() == [0, 0, 1, 1]
    assert not obs[2:, 3:].any()
    action = vec.sample()
    assert not action[2:, 1:].any()
    before = obs.copy()
    moved = vec.step(action)
    assert np.array_equal(obs, before)  # an observation lives for one more step
    assert moved.reward[2] < 0  # Pendulum's costs arrive in its rows
    alone = envs.make(specs[1:], 2, seed=0)
    assert not np.array_equal(alone.reset()[:, :3], before[2:, :3])  # tasks have ranges of episode seeds of their own


def test_replay_shares_batches_between_tasks():
    """Equal shares, the remainder goes round; windows hold one episode of one task."""
    cfg = TrainConfig(task="toy-reach,toy-cross", buffer_size=400, num_envs=2, horizon=3)
    vec = envs.make([envs.describe(name) for name in cfg.tasks], 2, seed=0)
    replay = TaskReplay(cfg, widths_of(vec), [np.random.default_rng(i) for i in range(2)], torch.device("cpu"))
    obs, first, seen = vec.reset(), np.ones(4, bool), []
    for _ in range(120):
        action = vec.sample()
        moved = vec.step(action)
        replay.add(obs, action, moved, first, vec.rows)
        seen.append(obs.reshape(2, 2, -1).copy())
        obs, first = moved.obs, moved.terminated | moved.truncated
    stored = np.stack(seen[-100:], 1).reshape(2, 200, -1)  # the ring holds 100 steps of each env
    for found, expected in zip(replay.obs_moments(), (stored.mean(1), stored.std(1))):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    counts = [replay.sample(7)["task"].bincount().tolist() for _ in range(4)]
    assert counts == [[4, 3], [3, 4], [4, 3], [3, 4]]
    batch = replay.sample(640)
    assert batch["obs"].shape == batch["next_obs"].shape == (3, 640, 6)
    torch.testing.assert_close(batch["obs"][1:], batch["next_obs"][:-1])  # no window crosses an episode's end
    assert not batch["truncated"][:-1].any()
    assert batch["truncated"][-1].any()  # but its last step may be one


def test_a_single_observation_has_no_deviation():
    cfg = TrainConfig(task="toy-reach", buffer_size=10, horizon=1)
    vec = envs.make([envs.describe("toy-reach")], 1, seed=0)
    replay = TaskReplay(cfg, widths_of(vec), [np.random.default_rng(0)], torch.device("cpu"))
    obs, action = vec.reset().copy(), vec.sample()
    replay.add(obs, action, vec.step(action), np.ones(1, bool), vec.rows)
    mean, std = replay.obs_moments()
    np.testing.assert_array_equal(mean, obs)
    assert not std.any()


def test_random_actions_are_held_and_a_resumed_env_holds_on():
    vec = envs.make([envs.describe("toy-reach")], 2, seed=1)
    vec.reset()
    held = [vec.sample(3).copy() for _ in range(4)]
    assert np.array_equal(held[0], held[2])
    assert not np.array_equal(held[2], held[3])
    again = envs.make([envs.describe("toy-reach")], 2, seed=1)
    again.reset()
    again.load_state_dict(vec.state_dict())
    for _ in range(5):
        assert np.array_equal(vec.sample(3), again.sample(3))


def test_random_actions_at_the_limits():
    specs = [envs.describe(name) for name in ("toy-reach", "Pendulum-v1")]
    drawn = np.stack([envs.make(specs, 8, seed=seed).sample(at_limits=True).copy() for seed in range(4)])
    used = np.zeros(drawn.shape, bool)
    used[:, :8], used[:, 8:, 0] = True, True  # the second task has one action: the other stays zero
    assert set(drawn[used]) == {-1.0, 1.0}
    assert not drawn[~used].any()
