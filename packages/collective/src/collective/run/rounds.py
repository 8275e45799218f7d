"""One round of on-policy data: the policies act, whoever is the expert says what it would have done there.

Ross et al. 2011, arXiv:1011.0686: a policy that has only seen its experts' states has nobody to follow once it strays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np

from collective import envs
from collective.agent import Collective
from collective.config_distill import DistillConfig
from collective.data import Array, Dataset
from collective.labels import Labels
from collective.recorder import Recorder
from collective.rollout import MAX_ENVS
from collective.windows import Rolling

COPIES = 2  # envs of each task and policy
AFTER = 10  # steps an episode goes on after its first success


def collect(
    policies: Mapping[str, Collective], labels: Labels, cfg: DistillConfig, *, seed: int, goal_seed: int,
    reward_version: str,
) -> tuple[Dataset, dict[str, float]]:  # fmt: skip
    """Rows of about `cfg.round_steps` steps of each task, the policies taking equal parts.

    Also the success of each one's episodes, less those that the round's end cut.
    """
    tasks, arms = labels.tasks, list(policies)
    copies = (COPIES if len(tasks) * len(arms) * COPIES <= MAX_ENVS else 1) * len(arms)
    vec = envs.make(
        tasks, seed=seed, copies=copies, goal_seed=goal_seed, horizon=cfg.horizon, workers=cfg.workers,
        reward_version=reward_version,
    )  # fmt: skip
    arm_of = np.arange(vec.num_envs) % len(arms)
    recorder, rolling = Recorder(tasks, vec.task_index, cfg.horizon), Rolling(vec.num_envs)
    since = np.full(vec.num_envs, -1)  # steps since the episode's first success
    action = np.zeros((vec.num_envs, 4), np.float32)
    ends: dict[str, list[bool]] = {arm: [] for arm in arms}
    with contextlib.closing(vec):
        rolling.begin(vec.reset())
        for _ in range(-(-cfg.round_steps // copies)):
            obs = vec.current_obs
            for number, (_, policy) in enumerate(policies.items()):
                own = np.flatnonzero(arm_of == number)
                action[own] = policy.act(policy.inputs(obs[own], some(rolling, own), vec.task_index[own]))
            mean, log_std = labels.of(obs, vec.task_index)
            goal_id = vec.goal_id.copy()
            moved = vec.step(action, stop=(since >= 0) & (since + 1 >= AFTER))
            success, ended = moved.info["success"], moved.terminated | moved.truncated
            since = np.where(since >= 0, since + 1, np.where(success, 0, -1))
            recorder.add(
                np.where(ended[:, None], moved.final_obs, moved.obs), ended, goal_id, obs=obs, action=action,
                reward=moved.reward, success=success, expert_mean=mean, expert_log_std=log_std,
                executed_expert=np.zeros(vec.num_envs, bool),
            )  # fmt: skip
            rolling.advance(action, moved.reward, moved.obs, ended)
            for i in np.flatnonzero(ended):
                ends[arms[arm_of[i]]].append(bool(since[i] >= 0))
            since[ended] = -1
        recorder.cut(vec.current_obs, vec.goal_id)
    found = recorder.take()
    assert found is not None
    return labels.judge(found), {arm: float(np.mean(ended_)) if ended_ else 0.0 for arm, ended_ in ends.items()}


def some(rolling: Rolling, chosen: Array) -> Rolling:
    """The windows of some envs, by number."""
    part = Rolling(len(chosen), rolling.length)
    part.load_state_dict({name: value[chosen] for name, value in rolling.state_dict().items()})
    return part
