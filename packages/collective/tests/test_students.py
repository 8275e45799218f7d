"""What a teacher tells a student and what is paid for it, against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from collective_students import Counting, Network, plain_code, step_of

from collective.config_student import StudentConfig
from collective.envs import make, scripted
from collective.losses import shaping_weight
from collective.students import Experience, Guide, Learnt, Script, View
from collective.windows import Rolling
from rlcore.errors import UsageError

Array = np.ndarray[Any, Any]


def config(**options: Any) -> StudentConfig:
    return StudentConfig(task="toy-reach", teacher="scripted", **options)


def guide(teacher: Any, n: int = 1, seed: int = 0, **options: Any) -> Guide:
    made = Guide(config(**options), teacher, n, np.random.default_rng(seed))
    made.begin(np.zeros((n, 39), np.float32), 0)
    return made


def observations(*firsts: float) -> Array:
    obs = np.zeros((len(firsts), 39), np.float32)
    obs[:, 0] = firsts
    return obs


def pay(made: Guide, action: Array, step: int = 0) -> Array:
    obs = np.zeros((len(action), 39), np.float32)
    return made.pay(action, step_of(obs, [0.0] * len(action), [False] * len(action)), obs, step)


# --- the bonus --------------------------------------------------------------------------------------------------------
def test_what_an_action_like_the_teachers_is_paid():
    """One dimension off by sigma: exp(-1/2); all four: exp(-2)."""
    mean, sigma = np.full((3, 4), 0.1, np.float32), 0.5
    action = mean.copy()
    action[1, 2] += sigma
    action[2] -= sigma
    paid = pay(guide(Counting(mean, np.full((3, 4), math.log(sigma))), 3), action)
    assert paid == pytest.approx([1.0, 0.6065307, 0.1353353], rel=1e-5)


@pytest.mark.parametrize(("log_std", "sigma"), [(-9.0, 0.3), (math.log(0.1), 0.3), (0.1, 1.0)])
def test_a_teachers_sigma_stays_where_it_means_something(log_std: float, sigma: float):
    """D17: neither a spike that no action meets, nor 1.105 where 0.1 was meant."""
    mean = np.zeros((1, 4), np.float32)
    action = mean + np.array([0.3, 0, 0, 0], np.float32)
    paid = pay(guide(Counting(mean, np.full((1, 4), log_std))), action)
    assert paid == pytest.approx(math.exp(-0.5 * (0.3 / sigma) ** 2), rel=1e-5)


def test_a_script_is_paid_for_with_a_sigma_of_three_tenths():
    envs = make(("toy-push",), seed=0, copies=3)
    obs = envs.reset()
    teacher = Script("toy-push", 3)
    teacher.begin(obs)
    mean = teacher.advise()[0]
    assert np.array_equal(mean, [scripted("toy-push")(row) for row in obs])
    made = guide(teacher, 3)
    teacher.begin(obs)
    off = mean + np.array([0.3, 0, 0, 0], np.float32)
    assert pay(made, off) == pytest.approx(math.exp(-0.5), rel=1e-5)


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (8_000, 1.0), (29_000, 0.5), (50_000, 0.0), (90_000, 0.0)])
def test_bonus_and_mixing_fade_together(step: int, expected: float):
    made = guide(Counting(np.zeros((1, 4)), np.zeros((1, 4))), bonus_scale=2.0, mix=0.6)
    assert made.weight(step) == pytest.approx(2.0 * expected)
    assert made.share(step) == pytest.approx(0.6 * expected)
    assert made.weight(step) == pytest.approx(shaping_weight(step, 4_000, 4_000, 50_000, 2.0))


def test_a_bonus_is_stored_once_and_weighed_when_it_is_learnt_from():
    """r = 2, rho = exp(-1/2): 2.6065 at first, 2.3033 halfway, 2 in the end."""
    teacher = Counting(np.zeros((1, 4), np.float32), np.full((1, 4), math.log(0.5), np.float32))
    made = guide(teacher)
    memory = Experience(10, 1, 39, 0.99, np.random.default_rng(0))
    obs, action = observations(0.0), np.array([[0.5, 0, 0, 0]], np.float32)
    moved = step_of(observations(1.0), [2.0], [False])
    memory.add(obs, action, moved, made.pay(action, moved, moved.obs, 0), moved.obs)
    asked = len(teacher.calls)
    for step, expected in ((0, 2.6065307), (29_000, 2.3032653), (50_000, 2.0)):
        batch = memory.sample(4, made.weight(step))
        torch.testing.assert_close(batch["reward"], torch.full((4,), expected))
        torch.testing.assert_close(batch["discount"], torch.full((4,), 0.99))
        assert batch.keys() == {"obs", "next_obs", "action", "reward", "discount"}
    assert len(teacher.calls) == asked


def test_an_end_has_no_future_and_a_cut_has_one():
    memory = Experience(10, 2, 39, 0.9, np.random.default_rng(0))
    moved = step_of(observations(1.0, 2.0), [1.0, 2.0], [True, False])
    moved = moved._replace(terminated=np.array([False, True]))
    memory.add(observations(0, 0), np.zeros((2, 4), np.float32), moved, np.zeros(2, np.float32), moved.obs)
    batch = memory.sample(64, 0.0)
    cut = batch["reward"] == 1.0
    torch.testing.assert_close(batch["discount"], torch.where(cut, 0.9, 0.0))
    assert cut.any()
    assert not cut.all()


# --- potentials -------------------------------------------------------------------------------------------------------
def test_potentials_telescope_over_an_episode_that_is_cut():
    """sum gamma^t F_t = gamma^T Phi(s_T) - Phi(s_0), s_T being where it was cut and not where the next one begins."""
    values = [3.0, -1.0, 4.0, 1.0, 5.0, 99.0]
    teacher = Counting(np.zeros((1, 4)), np.zeros((1, 4)), values)
    cfg = StudentConfig(task="toy-reach", teacher="somewhere", shaping="potential", gamma=0.9)
    made = Guide(cfg, teacher, 1, np.random.default_rng(0))
    made.begin(observations(0), 0)
    total = 0.0
    for t in range(4):
        cut = t == 3
        moved = step_of(observations(5 if cut else t + 1), [0.0], [cut], observations(4))
        paid = made.pay(np.zeros((1, 4), np.float32), moved, moved.final_obs if cut else moved.obs, t)
        total += 0.9**t * float(paid[0])
    assert total == pytest.approx(0.9**4 * values[4] - values[0], rel=1e-5)
    assert teacher.seen[-1][1][0, 0] == 5  # the next episode has begun


def test_a_script_has_no_potential():
    with pytest.raises(UsageError, match="no critics"):
        config(shaping="potential")


# --- who acts ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("by", ["step", "episode"])
@pytest.mark.parametrize("step", [0, 29_000])
def test_the_teacher_acts_as_often_as_was_said(by: str, step: int):
    """Within three sigma: his share is 0.4, and half of it halfway."""
    n, turns, share = 50, 100, 0.4 * (1.0 if step == 0 else 0.5)
    made = guide(Counting(np.ones((n, 4), np.float32), np.zeros((n, 4))), n, mix=0.4, mix_by=by)
    count = 0
    for _ in range(turns):
        made.begin(np.zeros((n, 39), np.float32), step)
        executed = made.act(np.zeros((n, 4), np.float32), step)
        assert np.array_equal(executed[:, 0] == 1, made.acted)
        count += int(made.acted.sum())
    assert abs(count - n * turns * share) < 3 * math.sqrt(n * turns * share * (1 - share))


def test_an_episode_is_the_teachers_from_beginning_to_end():
    n = 40
    made = guide(Counting(np.ones((n, 4), np.float32), np.zeros((n, 4))), n, mix=0.5, mix_by="episode")
    own = np.zeros((n, 4), np.float32)
    first = made.act(own, 0)
    assert 0 < first[:, 0].sum() < n
    for step in range(1, 5):
        assert np.array_equal(made.act(own, step), first)
    ended = np.arange(n) < n // 2
    obs = np.zeros((n, 39), np.float32)
    made.pay(own, step_of(obs, [0.0] * n, ended.tolist(), obs), obs, 5)
    later = made.act(own, 6)
    assert np.array_equal(later[~ended], first[~ended])
    assert not np.array_equal(later[ended], first[ended])


@pytest.mark.parametrize(
    "options",
    [
        {"shaping": "none", "mix": 0.5}, {"mix": 0.0}, {"mix": 0.5, "mix_by": "episode"},
        {"shaping": "none", "clone": 1}, {"shaping": "none", "clone": 1, "clone_kept": 1},
    ],
)  # fmt: skip
def test_after_it_has_expired_the_teacher_is_left_alone(options: dict[str, Any]):
    teacher = Counting(np.ones((2, 4), np.float32), np.zeros((2, 4)))
    made = guide(teacher, 2, warmup=10, constant=10, expire=40, **options)
    own, obs = np.zeros((2, 4), np.float32), np.zeros((2, 39), np.float32)
    for step in range(0, 40, 2):
        told = np.ones((2, 4)) if options.get("clone") else np.full((2, 4), np.nan)
        assert np.array_equal(made.advice(step), told, equal_nan=True)
        made.pay(made.act(own, step), step_of(obs, [0.0, 0.0], [step % 6 == 0, False], obs), obs, step)
    assert "advise" in teacher.calls
    teacher.calls.clear()
    for step in range(40, 80, 2):
        executed = made.act(own, step)
        assert np.array_equal(executed, own)
        assert not made.acted.any()
        assert np.isnan(made.advice(step)).all()
        paid = made.pay(executed, step_of(obs, [0.0, 0.0], [True, True], obs), obs, step)
        assert not paid.any()
    assert not teacher.calls


@pytest.mark.parametrize(("step", "expected"), [(0, 2.0), (8_000, 2.0), (29_000, 1.0), (50_000, 0.0)])
def test_what_imitating_counts_fades_like_the_bonus(step: int, expected: float):
    made = guide(Counting(np.zeros((1, 4), np.float32), np.zeros((1, 4))), clone=2.0)
    assert made.cloning(step) == pytest.approx(expected)
    kept = guide(Counting(np.zeros((1, 4), np.float32), np.zeros((1, 4))), clone=2.0, clone_kept=1.5)
    assert kept.cloning(step) == pytest.approx(max(expected, 1.5))
    assert guide(None, clone=2.0, clone_kept=1.5).cloning(step) == 0


# --- what a network sees ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shaping", ["bonus", "potential"])
def test_a_step_takes_one_forward_however_much_is_asked(shaping: Any):
    network = Network(("toy-reach",))
    teacher = Learnt(network, "toy-reach", 3)  # type: ignore[arg-type]
    clone = 0.5 if shaping == "bonus" else 0.0
    cfg = StudentConfig(task="toy-reach", teacher="somewhere", shaping=shaping, mix=0.5, clone=clone)
    made, obs = Guide(cfg, teacher, 3, np.random.default_rng(0)), np.zeros((3, 39), np.float32)
    made.begin(obs, 0)
    for step in range(0, 30, 3):
        executed = made.act(np.zeros((3, 4), np.float32), step)
        made.advice(step)
        made.pay(executed, step_of(obs, [1.0] * 3, [False] * 3), obs, step)
    assert network.forwards <= 11


def test_the_window_is_of_the_students_own_behaviour():
    """Against a plain one, over several episodes: what was executed, raw rewards, no step of another episode."""
    network, n, rng = Network(("toy-reach",)), 3, np.random.default_rng(0)
    view = View(network, "toy-reach", n)  # type: ignore[arg-type]
    envs = make(("toy-reach",), seed=0, copies=n, horizon=7)
    view.begin(envs.reset())
    plain = [Rolling(1) for _ in range(n)]
    for i, each in enumerate(plain):
        each.begin(envs.current_obs[i : i + 1])
    for _ in range(30):
        got = view.inputs()
        for i, each in enumerate(plain):
            np.testing.assert_array_equal(got[i, :6], plain_code(each)[0])
            np.testing.assert_array_equal(got[i, 6:], each.states[0, -1])
        action = rng.uniform(-1, 1, (n, 4)).astype(np.float32)
        moved = envs.step(action)
        done = moved.truncated
        view.advance(action, moved.reward, np.where(done[:, None], moved.final_obs, moved.obs))
        if done.any():
            view.begin(moved.obs, done)
        for i, each in enumerate(plain):
            if done[i]:
                each.begin(moved.obs[i : i + 1])
            else:
                each.advance(action[i : i + 1], moved.reward[i : i + 1], moved.obs[i : i + 1])


def test_an_unknown_task_needs_a_code():
    network: Any = Network(("toy-push",))
    assert View(network, "toy-reach", 2).task.tolist() == [-1, -1]
    assert View(network, "toy-push", 2).task.tolist() == [0, 0]
    network.code = "task-id"
    with pytest.raises(UsageError, match=r"toy-reach is none of the network's tasks \(toy-push\)"):
        View(network, "toy-reach", 2)


def test_another_teacher_is_noticed():
    state = guide(Counting(np.zeros((1, 4)), np.zeros((1, 4)))).state_dict()
    other = Counting(np.zeros((1, 4)), np.zeros((1, 4)))
    other.fingerprint = "other"  # type: ignore[misc]
    with pytest.raises(UsageError, match="counting -> other"):
        guide(other).load_state_dict(state)
    with pytest.raises(UsageError, match="counting -> none"):
        guide(None).load_state_dict(state)
    with pytest.raises(UsageError, match="none -> other"):
        guide(other).load_state_dict(guide(None).state_dict())
