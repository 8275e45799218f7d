"""`mpn train`: collect, learn, evaluate, save. Running the same command again continues the run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpn.agent import Agent
from mpn.config import MAY_CHANGE, TrainConfig
from mpn.envs import make
from mpn.replay import SequenceReplay
from mpn.run.history import History
from rlcore import device
from rlcore.errors import QuintetWarning
from rlcore.evaluate import evaluate
from rlcore.nets import count_parameters
from rlcore.run import Run
from rlcore.vecenv import EpisodeStats, VecEnv, VecStep

LINKS = {
    "last": ("last.pt", "latest.pt"),
    "best": ("best.pt", "best_model.pt"),
    "final": ("final.pt", "final_model.pt"),
}
M_LIMIT = 1e4  # a Hebbian matrix this large has run away: relu and linear units can do that
BAD_UPDATES = 10  # skipped in a row before the run is given up


def train(cfg: TrainConfig) -> Path:
    """Train as `cfg` says; returns the run's folder. Errors: see rlcore.run.Run.open, rlcore.errors.NumericalError."""
    device.set_threads(cfg.threads)
    where = device.resolve(cfg.device)
    envs = make(cfg.env, cfg.num_envs, seed=cfg.seed, max_episode_steps=cfg.max_episode_steps)
    agent = Agent(cfg, envs.single_observation_space.shape[0], int(envs.single_action_space.n), where)  # type: ignore
    facts = {
        "env": cfg.env, "action_repeat": 1, "parameters": count_parameters(agent.nets.online),
        "input_map": cfg.resolved_input_map,
    }  # fmt: skip
    with Run.open(
        cfg, program="mpn", total=cfg.total_steps, stride=cfg.num_envs, links=LINKS, may_change=MAY_CHANGE, facts=facts
    ) as run:
        buffer = make_replay(cfg, agent, run.numpy_generator("replay"))
        stats, history, watch = EpisodeStats(cfg.num_envs), History(run.folder), Watch(cfg.num_envs)
        parts = {
            "agent": agent, "envs": envs, "buffer": buffer if cfg.save_replay else None, "stats": stats,
            "history": history, "watch": watch,
        }  # fmt: skip
        envs.reset()  # before the checkpoint, if there is one: it may be of step 0
        step = run.restore(**parts)
        obs = envs.current_obs
        is_init = watch.is_init
        filled_from = step if step and not cfg.save_replay else 0  # without its replay, a resumed run refills first
        if run.unscored:
            run.score(step, partial(evaluate_now, run, step, agent, cfg), **parts)
        while run.going(step) and not history.complete(cfg.num_episodes):
            epsilon = agent.epsilon(step, history.episodes)
            with run.phase("act"):
                buffer.remember(agent.memory)
                action = agent.act(obs, epsilon)
            with run.phase("env"):
                moved = envs.step(action)
            with run.phase("store"):
                done = moved.terminated | moved.truncated
                buffer.add(
                    obs=obs, action=action, reward=moved.reward, terminated=moved.terminated,
                    truncated=moved.truncated, is_init=is_init,
                )  # fmt: skip
                agent.forget(done)
                watch.saw(moved, done)
                history.add(stats.update(moved.reward, done), epsilon)
                obs, is_init, step = moved.obs, done, step + cfg.num_envs
            if step - filled_from > cfg.learning_starts and buffer.ready:
                with run.phase("learn"):
                    for _ in range(step // cfg.train_freq - (step - cfg.num_envs) // cfg.train_freq):
                        watch.batch, memory = buffer.sample(cfg.batch_size)
                        run.meters.add(agent.update(watch.batch, memory, step / cfg.total_steps))
            if run.due("log", step):
                watch.check(run, step, agent)
                run.train_row(step, agent.updates, **history.row(run.meters), **agent_row(agent, epsilon))
            if run.due("eval", step):
                with run.phase("evaluate"):
                    run.score(step, partial(evaluate_now, run, step, agent, cfg), **parts)
            if run.due("save", step):
                with run.phase("save"):
                    with run.saving("the history of episodes"):
                        history.write()
                    run.save(step, **parts)
        with run.saving("the history of episodes"):
            history.write()
        folder = run.finish(step, **parts)
    envs.close()
    return folder


def make_replay(cfg: TrainConfig, agent: Agent, rng: np.random.Generator) -> SequenceReplay:
    """Replay memory for this agent."""
    net = agent.nets.online
    return SequenceReplay(cfg, net.obs_dim, net.init_state(1), rng, agent.device)


def evaluate_now(run: Run, step: int, agent: Agent, cfg: TrainConfig) -> float:
    """Greedy episodes, always the same ones, with envs and seeds of their own: training does not notice."""

    def make_envs(num_envs: int, first_env: int) -> VecEnv:
        limit = cfg.max_episode_steps
        return make(cfg.env, num_envs, seed=run.seed("selection"), first_env=first_env, max_episode_steps=limit)

    row = evaluate(agent.policy, make_envs, cfg.eval_episodes).as_row()
    run.log("eval", step, row)
    run.console.say(f"step {step:,}: greedy return {row['return_mean']:.2f} over {cfg.eval_episodes} episodes")
    return float(row["return_mean"])


def agent_row(agent: Agent, epsilon: float) -> dict[str, Any]:
    """What a train row tells of the agent besides the meters."""
    return {"epsilon": epsilon, "m_norm": memory_norm(agent.memory), "skipped_updates": int(agent.skipped)}


def memory_norm(memory: Any) -> float:
    """Mean Frobenius norm of the envs' memories (Hebbian matrices, or hidden states)."""
    return float(np.mean([np.linalg.norm(m.reshape(len(m), -1), axis=1).mean() for m in arrays(memory)]))


def arrays(memory: Any) -> list[np.ndarray[Any, Any]]:
    """The parts of a memory, wherever they live, as numpy arrays (N, ...)."""
    parts = memory if isinstance(memory, tuple) else (memory,)
    return [m.cpu().numpy() if isinstance(m, torch.Tensor) else m for m in parts]


class Watch:
    """Looks for NaN, Inf and run-away memories, once a log row: the sums it keeps cost a microsecond a step."""

    def __init__(self, num_envs: int) -> None:
        self.is_init = np.ones(num_envs, bool)
        self._obs = np.zeros(num_envs)
        self._reward = np.zeros(num_envs)
        self._skipped = 0  # updates that were reported already
        self.batch: Mapping[str, Any] = {}  # of the last update: what to look at where it was bad

    def saw(self, moved: VecStep, done: np.ndarray[Any, Any]) -> None:
        """NaN and Inf stay in a sum."""
        self.is_init = done
        self._obs += moved.obs.sum(1)
        self._reward += moved.reward

    def check(self, run: Run, step: int, agent: Agent) -> None:
        """Raise NumericalError, naming the tensor, after writing what may explain it."""
        for what, total in (("observation", self._obs), ("reward", self._reward)):
            bad = np.flatnonzero(~np.isfinite(total))
            total[:] = 0.0
            if bad.size:
                run.diverged(step, f"the {what} of env {bad[0]}", self._dump(agent))
        for name, value in agent.nets.online.named_parameters():
            if not bool(torch.isfinite(value).all()):
                run.diverged(step, f"parameter {name}", self._dump(agent))
        if (skipped := int(agent.skipped)) > self._skipped:
            message = (
                f"{skipped - self._skipped} updates before step {step:,} were skipped: loss or gradient not finite"
            )
            warnings.warn(message, QuintetWarning, stacklevel=2)
            self._skipped = skipped
        if int(agent.bad_in_a_row) >= BAD_UPDATES:
            what = f"the gradient norm or loss of the last {int(agent.bad_in_a_row)} updates"
            run.diverged(step, what, self._dump(agent))
        largest = max(float(np.abs(m).max()) for m in arrays(agent.memory))
        if not largest < M_LIMIT:
            cfg = agent.cfg
            what = (
                f"max|M| = {largest:.3g} (limit {M_LIMIT:g}; eta {cfg.eta}, lambda {cfg.lambda_decay}): lower them, or"
            )
            run.diverged(step, f"{what} use --activation tanh or --m-clip; the memory", self._dump(agent))

    def _dump(self, agent: Agent) -> Mapping[str, Any]:
        return {"agent": agent.state_dict(), "batch": self.batch}

    def state_dict(self) -> dict[str, Any]:
        return {"is_init": self.is_init, "obs": self._obs, "reward": self._reward, "skipped": self._skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.is_init, self._skipped = np.asarray(state["is_init"]).copy(), int(state["skipped"])
        self._obs, self._reward = np.asarray(state["obs"]).copy(), np.asarray(state["reward"]).copy()
