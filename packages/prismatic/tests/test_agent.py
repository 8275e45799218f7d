"""The learner: what an update changes and what a bad batch must not, that nothing is shared, that all comes back."""

from __future__ import annotations

import copy
import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from prismatic.agent import TERMS, Agent
from prismatic.config import TaskSpec, TrainConfig
from rlcore import checkpoint
from rlcore.errors import DataError
from rlcore.evaluate import evaluate
from rlcore.vecenv import VecStep

CPU = torch.device("cpu")
CFG = TrainConfig(model_size="tiny", batch_size=12, num_samples=16, num_elites=4, num_pi_trajs=2, iterations=2)
DENSE = replace(CFG, use_moe=False)
ONE = [TaskSpec("one", 4, 2, 500)]
TWO = [TaskSpec("wide", 4, 3, 500), TaskSpec("narrow", 2, 1, 100, episodic=True)]


def batch(agent: Agent, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shape = (agent.cfg.horizon, agent.cfg.batch_size)
    return {
        "obs": torch.randn(*shape, agent.model.obs_dim, generator=g),
        "next_obs": torch.randn(*shape, agent.model.obs_dim, generator=g),
        "action": torch.rand(*shape, agent.model.action_dim, generator=g) * 2 - 1,
        "reward": torch.randn(shape, generator=g),
        "terminated": torch.rand(shape, generator=g) < 0.1,
        "task": torch.arange(agent.cfg.batch_size) % len(agent.tasks),
    }


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """Nested state as one dictionary, tensors copied."""
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else None
    if items is None:
        return {name: state.clone() if isinstance(state, Tensor) else state}
    return {key: value for k, item in items for key, value in flat(item, f"{name}.{k}").items()}


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    assert a.keys() == b.keys()
    return [k for k in a if not (torch.equal(a[k], b[k]) if isinstance(a[k], Tensor) else a[k] == b[k])]


@pytest.mark.parametrize("cfg", [CFG, DENSE], ids=["moe", "dense"])
def test_losses_fall_on_a_batch_seen_again_and_again(cfg: TrainConfig):
    agent = Agent(cfg, TWO, CPU)  # several tasks, one of which terminates: D10
    data = batch(agent)
    first = agent.update(data)
    for _ in range(60):
        last = agent.update(data)
    for name, value in last.items():
        assert value.shape == (), name
        assert value.isfinite(), name
    for term in ("consistency", "reward", "termination"):
        assert last[f"{term}_loss"] < 0.9 * first[f"{term}_loss"], term
    assert agent.skipped == 0
    assert agent.updates == 61
    assert ("moe/dyn/mi_task" in last) == cfg.use_moe


def test_learning_rates_of_encoder_and_rest():
    agent = Agent(CFG, ONE, CPU)
    assert [group["lr"] for group in agent.optimizer.param_groups] == pytest.approx([0.9e-4, 3e-4])
    trained = {p for group in agent.optimizer.param_groups for p in group["params"]} | {*agent.pi_parameters}
    assert trained == {p for p in agent.model.parameters() if p.requires_grad}
    before = agent.model.encoder.head.bias.detach().clone()
    agent.update(batch(agent))
    moved = (agent.model.encoder.head.bias - before).abs()
    assert_close(moved.max(), torch.tensor(0.9e-4), rtol=1e-2, atol=0)  # Adam's first step is the learning rate


@pytest.mark.parametrize("clip", [1e-4, 20.0])
def test_gradients_are_clipped_jointly(clip: float):
    agent = Agent(replace(CFG, grad_clip_norm=clip), ONE, CPU)
    norm = agent.update(batch(agent))["grad_norm"]
    moments = torch.cat([s["exp_avg"].flatten() for s in agent.optimizer.state_dict()["state"].values()])
    assert_close(moments.norm(), 0.1 * norm.clamp(max=clip), rtol=1e-4, atol=0)


@pytest.mark.parametrize("cfg", [CFG, DENSE], ids=["moe", "dense"])
@pytest.mark.parametrize("bad", ["obs", "reward", "action", "next_obs"])
def test_a_bad_batch_is_left_out_and_named(cfg: TrainConfig, bad: str):
    agent = Agent(cfg, ONE, CPU)
    agent.update(batch(agent))
    before = flat(agent.state_dict())
    data = batch(agent, 1)
    data[bad][0, 3] = math.nan
    metrics = agent.update(data)
    assert all(value.isfinite() for value in metrics.values())
    assert (agent.skipped, agent.bad_in_a_row, agent.updates) == (1, 1, 2)
    changed = differences(before, flat(agent.state_dict()))
    counters = {"generator", "updates", "skipped", "bad_in_a_row", "bad_terms"}
    assert all("target_critics" in k or k.split(".")[1] in counters for k in changed), changed
    expected = {"obs": "consistency", "reward": "reward", "action": "consistency", "next_obs": "consistency"}
    assert agent.bad_term() == expected[bad]
    agent.update(batch(agent, 2))
    assert (agent.skipped, agent.bad_in_a_row) == (1, 0)


def test_every_term_of_the_loss_is_watched():
    agent = Agent(CFG, TWO, CPU)
    data = batch(agent)
    _, terms, *_ = agent.model_loss(data, agent.draw(CFG.batch_size))
    assert tuple(terms) == TERMS[:5]
    assert agent.bad_term() is None


def test_a_bad_critic_stops_the_policy_too():
    agent = Agent(CFG, ONE, CPU)
    agent.model.critics.head.bias.data[:] = math.inf
    before = flat(agent.model.policy_net.state_dict())
    agent.update(batch(agent))
    assert not differences(before, flat(agent.model.policy_net.state_dict()))
    assert agent.bad_term() == "value"
    assert agent.scale == 1


@pytest.mark.parametrize("cfg", [CFG, DENSE], ids=["moe", "dense"])
def test_padding_changes_no_loss(cfg: TrainConfig):
    results = []
    for junk in (0.0, 1.0):
        agent = Agent(cfg, TWO, CPU)
        data, narrow = batch(agent), torch.arange(cfg.batch_size) % 2 == 1
        for key, width in (("obs", 2), ("next_obs", 2), ("action", 1)):
            data[key][:, narrow, width:] = junk
        results.append(agent.update(data) | flat(agent.model.state_dict()))
    assert not differences(*results)


@pytest.mark.parametrize("cfg", [CFG, DENSE], ids=["moe", "dense"])
def test_standardised_observations_are_what_another_agent_sees_plain(cfg: TrainConfig):
    """Two updates alike; what lies in the padding is no matter; tiny deviations and far observations have limits."""
    mean, std = torch.tensor([[1.0, -2.0, 0.5, 30.0], [3.0, 0.0, 7.0, 7.0]]), torch.tensor([0.001, 0.5, 2.0, 9.0])
    ours, plain = Agent(replace(cfg, obs_norm=True), TWO, CPU), Agent(cfg, TWO, CPU)
    ours.standardise(mean, std.expand(2, 4))
    std = std.clamp(min=0.01)
    seen = batch(plain)
    raw = {**seen} | {key: seen[key] * std + mean[seen["task"]] for key in ("obs", "next_obs")}
    narrow = seen["task"] == 1
    raw["obs"][:, narrow, 2:] = -55.0
    for _ in range(2):
        a, b = ours.update(raw), plain.update(seen)
        for name in a:
            assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)
    assert set(ours.model.state_dict()) - set(plain.model.state_dict()) == {"obs_mean", "obs_std"}
    far = ours.model.encode(torch.full((1, 4), 1e9), torch.zeros(1, dtype=torch.int64))
    assert_close(
        far, plain.model.encode(torch.full((1, 4), 10.0), torch.zeros(1, dtype=torch.int64)), atol=1e-2, rtol=0
    )


def test_narrow_batches_are_padded():
    results = []
    for width in (2, 4):
        agent = Agent(CFG, TWO, CPU)
        data = batch(agent) | {"task": torch.ones(12, dtype=torch.int64)}
        for key in ("obs", "next_obs"):
            data[key] = data[key][..., :width]
        results.append(agent.update(data))
    assert not differences(*results)


def test_tasks_stay_within_the_unit_ball():
    agent = Agent(replace(CFG, lr=0.5), TWO, CPU)
    for seed in range(4):
        agent.update(batch(agent, seed))
    assert agent.model.task_emb.norm(dim=1).max() <= 1 + 1e-5
    assert agent.model.task_emb.norm(dim=1).max() > 0.9


def test_the_target_critics_follow_slowly():
    agent = Agent(CFG, ONE, CPU)
    before = agent.model.target_critics.first.weight.clone()
    agent.update(batch(agent))
    after = agent.model.critics.first.weight.detach()
    assert_close(agent.model.target_critics.first.weight, 0.99 * before + 0.01 * after, rtol=1e-6, atol=1e-7)


def test_two_agents_share_nothing():  # D5, D6
    one, two = Agent(CFG, ONE, CPU), Agent(CFG, ONE, CPU)
    assert not differences(flat(one.state_dict()), flat(two.state_dict()))
    before, untouched = flat(two.state_dict()), torch.get_rng_state()
    one.update(batch(one))
    one.act(np.ones((1, 4), np.float32), np.ones(1, bool), np.zeros(1, np.int64), one.new_plan(1, 0))
    assert not differences(before, flat(two.state_dict()))
    assert torch.equal(untouched, torch.get_rng_state())  # nor a global generator
    other = Agent(CFG, [TaskSpec("other", 7, 3, 100)], CPU)
    assert other.model.encoder.hidden[0].weight.shape == (128, 7)
    assert one.model.encoder.hidden[0].weight.shape == (128, 4)


@pytest.mark.parametrize("cfg", [CFG, DENSE], ids=["moe", "dense"])
@pytest.mark.parametrize("tasks", [ONE, TWO], ids=["one", "two"])
def test_a_saved_agent_goes_on_bit_for_bit(cfg: TrainConfig, tasks: list[TaskSpec], tmp_path: Path):
    agent = Agent(cfg, tasks, CPU)
    memory = agent.new_plan(2, 0, "train")
    for seed in range(3):
        agent.update(batch(agent, seed))
    obs, ids = np.ones((2, 4), np.float32), np.arange(2) % len(tasks)
    agent.act(obs, np.ones(2, bool), ids, memory)
    checkpoint.save(tmp_path / "a.pt", {"agent": agent.state_dict(), "plan": memory.state_dict()})
    saved = checkpoint.load(tmp_path / "a.pt")
    again = Agent(replace(cfg, seed=77), tasks, CPU)
    again.load_state_dict(saved["agent"])
    other = again.new_plan(2, 5)
    other.load_state_dict(saved["plan"])
    for seed in range(3, 6):
        assert not differences(agent.update(batch(agent, seed)), again.update(batch(again, seed)))
        assert (agent.act(obs, np.zeros(2, bool), ids, memory) == again.act(obs, np.zeros(2, bool), ids, other)).all()
    assert not differences(flat(agent.state_dict()), flat(again.state_dict()))


def test_a_checkpoint_of_other_tasks_or_another_model_is_refused():
    saved = copy.deepcopy(Agent(CFG, ONE, CPU).state_dict())
    with pytest.raises(DataError, match=r"it has one \(observations 4, actions 2\), this run wide \(obs.*; narrow"):
        Agent(CFG, TWO, CPU).load_state_dict(saved)
    with pytest.raises(DataError, match="another model"):
        Agent(replace(CFG, n_experts=3), ONE, CPU).load_state_dict(saved)
    with pytest.raises(DataError, match="another model"):
        Agent(DENSE, ONE, CPU).load_state_dict(saved)


def test_cleaning_memory_changes_no_training():
    clean, plain = Agent(CFG, TWO, CPU), Agent(CFG, TWO, CPU)
    for seed in range(3):
        clean.clean_memory()
        assert not differences(clean.update(batch(clean, seed)), plain.update(batch(plain, seed)))
    a, b = flat(clean.state_dict()), flat(plain.state_dict())
    assert {k.rpartition(".")[2] for k in differences(a, b)} == {"history", "task_history", "count"}
    assert len(clean.model.dynamics.recent()) == 1


@pytest.mark.parametrize("tasks", [ONE, TWO], ids=["one", "two"])
def test_gating_is_drawn_and_written(tasks: list[TaskSpec], tmp_path: Path):
    agent = Agent(CFG, tasks, CPU)
    with pytest.raises(DataError, match="history is empty"):
        agent.plot_expert_gating(moe_block=agent.model.dynamics, save_path=tmp_path / "g.png")
    agent.update(batch(agent))
    agent.plot_expert_gating(moe_block=agent.model._dynamics, save_path=str(tmp_path / "g.png"))
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((tmp_path / "g.csv").read_text().splitlines()))
    assert [row["task"] for row in rows] == [task.name for task in tasks]
    assert float(rows[0]["expert_3"]) == pytest.approx(0.25, abs=0.01)
    with pytest.raises(DataError, match="no experts"):
        Agent(DENSE, ONE, CPU).plot_expert_gating(torch.nn.Linear(1, 1), tmp_path / "g.png")


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("entropy", ["gaussian", "squashed"])
def test_precision_and_entropy_are_choices(precision: Any, entropy: Any):
    agent = Agent(replace(CFG, precision=precision, entropy=entropy), TWO, CPU)
    for seed in range(3):
        metrics = agent.update(batch(agent, seed))
    assert agent.skipped == 0
    assert all(value.isfinite() and value.dtype == torch.float32 for value in metrics.values())
    assert all(p.dtype == torch.float32 for p in agent.model.parameters())
    obs = np.ones((2, 4), np.float32)
    assert np.isfinite(agent.act(obs, np.ones(2, bool), np.arange(2), agent.new_plan(2, 0))).all()


@pytest.mark.parametrize("mode", ["features", "penalty", "init"])
@pytest.mark.parametrize("top_k", [0, 2])
@pytest.mark.parametrize("experts", [1, 4])
def test_every_kind_of_mixture_learns(mode: Any, top_k: int, experts: int):
    agent = Agent(replace(CFG, orthogonal_mode=mode, moe_top_k=min(top_k, experts), n_experts=experts), ONE, CPU)
    data = batch(agent)
    first = agent.update(data)["consistency_loss"]
    for _ in range(40):
        last = agent.update(data)["consistency_loss"]
    assert agent.skipped == 0
    assert last < first


class Line:
    """Each env's reward is its first action; episodes are 3 steps long. Observations name the env."""

    def __init__(self, num_envs: int, first_env: int) -> None:
        self.num_envs, self.t = num_envs, 0
        self.obs = np.arange(first_env, first_env + num_envs, dtype=np.float32)[:, None].repeat(2, 1) / 5

    def reset(self) -> np.ndarray:
        return self.obs

    def step(self, action: np.ndarray) -> VecStep:
        assert action.shape == (self.num_envs, 1)
        self.t += 1
        ended, nothing = np.full(self.num_envs, self.t == 3), np.zeros(self.num_envs, bool)
        return VecStep(self.obs, action[:, 0], nothing, ended, self.obs, {})

    def close(self) -> None:
        pass


def test_evaluation_gives_each_episode_its_own_score_however_grouped():
    agent = Agent(CFG, TWO, CPU)
    with torch.no_grad():
        for p in agent.model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    make: Callable[[int, int], Any] = Line
    scores = [evaluate(agent.policy(1, 0, "eval"), make, 5, max_envs=size).returns for size in (5, 2, 1)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    np.testing.assert_allclose(scores[0], scores[2], atol=1e-5)
    assert len(set(scores[0])) == 5
    wide, _ = agent.policy(1, 0, padded=True).act(np.ones((1, 2), np.float32), agent.policy(1, 0).initial_state(1))
    assert wide.shape == (1, 3)


@pytest.mark.slow
def test_compiled_is_the_same():
    """Two minutes of compiling for the smallest of everything; on a GPU it is on by default."""
    results = []
    for mode in ("off", "on"):
        cfg = replace(DENSE, compile=mode, dropout=0.0, horizon=1, iterations=1)  # type: ignore[arg-type]
        agent = Agent(cfg, ONE, CPU)
        metrics = agent.update(batch(agent))
        action = agent.act(np.ones((1, 4), np.float32), np.ones(1, bool), np.zeros(1, np.int64), agent.new_plan(1, 0))
        results.append((metrics, action))
    for name, value in results[0][0].items():
        assert_close(results[1][0][name], value, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-3)
