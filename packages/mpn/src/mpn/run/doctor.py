"""`mpn doctor`: is the installation sound; and with --env, can a Hebbian memory read its past there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mpn.config import DoctorConfig, TrainConfig
from rlcore.doctor import Check, check, report
from rlcore.errors import QuintetError

EXTRAS = {"render": ["imageio", "pygame"], "tb": ["tensorboardX"], "wandb": ["wandb"], "fast-envs": ["envpool"]}
Array = np.ndarray[Any, Any]


def doctor(cfg: DoctorConfig) -> int:
    """Print the findings; exit code 5 when something needed is broken."""
    env_checks: list[Callable[[], Check]] = [partial(memory_check, cfg)] if cfg.env is not None else []
    return report(check("mpn", EXTRAS, env_checks), as_json=cfg.json)


def overlap(inputs: Array, is_init: Array, last: Array) -> float:
    """Share of decisions whose input shares support with some earlier input of the episode; a decision is a last step.

    The memory adds eta sum_{s<t} lambda^(t-1-s) h_s * W (x_s * x_t) to step t: where every x_s * x_t is 0, the past
    cannot be read, whatever W, eta and lambda are.

    Args: inputs (T, N, I); is_init, last (T, N) bool, the first and last steps of episodes.
    Returns: a share of the last steps; where no episode has ended, of all steps that have a past.
    """
    seen = np.zeros(inputs.shape[1:], bool)
    counted = last if last.any() else ~is_init
    readable = 0
    for x, first, count in zip(inputs != 0, is_init, counted):
        seen[first] = False
        readable += int((x & seen).any(1)[count].sum())
        seen |= x
    return readable / max(int(counted.sum()), 1)


def memory_check(cfg: DoctorConfig) -> Check:
    """Roll random episodes, and say what they mean for a plastic layer."""
    import torch  # here, so that a broken torch is a finding of the doctor's and not its death

    from mpn.envs import make
    from mpn.losses import burn_in_length
    from mpn.model import InputMap

    input_map: str = cfg.input_map
    if input_map == "auto":
        input_map = TrainConfig(env=cfg.env or "").resolved_input_map
    try:
        envs = make(cfg.env or "", 8, seed=0)
        mapped = InputMap(input_map, envs.single_observation_space.shape[0], 10, torch.Generator().manual_seed(0))
        obs, is_init = envs.reset(), np.ones(8, bool)
        inputs, firsts, lasts = [], [], []
        for _ in range(500):
            inputs.append(mapped(torch.as_tensor(obs)).detach().numpy().copy())
            firsts.append(is_init)
            moved = envs.step(envs.sample())
            obs, is_init = moved.obs, moved.terminated | moved.truncated
            lasts.append(is_init)
        envs.close()
    except QuintetError as error:
        return Check("fail", f"{cfg.env}: {error}", "see mpn train --help for what --env takes")
    x = np.stack(inputs)
    share = overlap(x, np.stack(firsts), np.stack(lasts))
    bound = float(np.abs(x).max()) / (1 - cfg.lambda_decay) if cfg.lambda_decay < 1 else float("inf")
    what = (
        f"{cfg.env} with --input-map {input_map}: the memory can be read at {share:.0%} of the last steps of episodes; "
        f"with lambda {cfg.lambda_decay:g} max|M| stays under {bound:.3g} |eta| (tanh)"
    )
    if cfg.lambda_decay < 1:
        what += f", burn-in of {burn_in_length(cfg.lambda_decay)} steps forgets 90 % of a wrong start"
    if share >= 0.5:
        return Check("ok", what)
    advice = "inputs hardly overlap (one-hot?): an MPN cannot read its memory there; use --input-map one or random"
    return Check("warn", what, advice)
