"""What the benchmarks run: tasks, methods, tiers, claims. All of it is in this file; nothing here starts anything.

A job is one (task, method, seed): a command that trains, and one that scores the best checkpoint on fresh episodes.
A method that is not installed is not in the table. Settings were found on seeds >= 100, never on the seeds here.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEER_PYTHON = ".venv-bench/bin/python"  # of the environment that `make bench` sets up for the peers; relative to ROOT
EVAL_EPISODES, EVAL_SEED_BASE = 100, 20_000  # training evaluates on other env seeds, below 20,000


@dataclass(frozen=True)
class Task:
    """A problem with a bar; `options` go to our methods, `peer_options` to the peer."""

    title: str
    env: str
    peer_env: str  # the same for rlcore.envs.make_env
    bar: float  # mean return of a solved task
    about: str
    options: str = ""
    peer_options: str = ""


@dataclass(frozen=True)
class Method:
    """A command line to run; `package` must be importable, or `script` run by the peers' Python."""

    title: str
    options: str = ""
    package: str = "mpn"
    script: str = ""

    def installed(self) -> bool:
        if self.script:
            return (ROOT / PEER_PYTHON).exists()
        return importlib.util.find_spec(self.package) is not None


@dataclass(frozen=True)
class Group:
    """Some methods on one task for so many env steps."""

    task: str
    methods: tuple[str, ...]
    steps: int
    eval_every: int


@dataclass(frozen=True)
class Claim:
    """What the repository says: `method` scores `at_least` on `task` in `of` seeds, or `at_most` (both ways) in all."""

    task: str
    method: str
    at_least: float | None = None
    at_most: float | None = None
    of: int | None = None  # None: every seed


@dataclass(frozen=True)
class Tier:
    about: str
    groups: tuple[Group, ...]
    seeds: tuple[int, ...]
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Job:
    """One training run and its evaluation. Commands are what a user types in the repository root."""

    task: str
    method: str
    seed: int
    steps: int
    train: tuple[str, ...]
    evaluate: tuple[str, ...]
    resumes: bool = True  # the same command continues an interrupted run; a job that cannot starts over

    @property
    def name(self) -> str:
        return f"{self.task}-{self.method}-s{self.seed}"


SB3_ZOO = (  # the settings stable-baselines3's own zoo tuned for CartPole-v1
    "--learning-rate 2.3e-3 --batch-size 64 --buffer-size 100000 --learning-starts 1000 --target-update 10 "
    "--train-freq 256 --gradient-steps 128 --exploration-fraction 0.16 --exploration-final 0.04"
)

TASKS = {
    "cartpole": Task(
        title="CartPole-v1",
        env="CartPole-v1",
        peer_env="CartPole-v1",
        bar=475,
        about="Balance a pole for 500 steps. Fully observed: memory is not needed, only stable learning.",
        peer_options=SB3_ZOO,
    ),
    "tmaze": Task(
        title="T-maze 10",
        env="mpn/TMaze-v0",
        peer_env="mpn.envs.gym:t_maze",
        bar=0.95,
        about="A cue in the first step says where to turn after ten more: +1 or -1. Without memory the mean is 0.",
    ),
    "match": Task(
        title="Delayed match",
        env="mpn/DelayedMatch-v0",
        peer_env="mpn.envs.gym:delayed_match",
        bar=0.95,
        about="Is the item shown now the one shown 3 to 6 steps ago? Without memory the mean is at most 0.",
    ),
}

METHODS = {
    "mpn": Method("mpn", "--core mpn"),
    "mpn-random": Method("mpn (random map)", "--core mpn --input-map random"),
    "mpn-raw": Method("mpn (raw input)", "--core mpn --input-map none"),
    "mpn-frozen": Method("mpn-frozen", "--core mpn-frozen"),
    "rnn": Method("rnn", "--core rnn"),
    "gru": Method("gru", "--core gru"),
    "lstm": Method("lstm", "--core lstm"),
    "sb3-dqn": Method("stable-baselines3 DQN", script="benchmarks/peers/sb3_dqn.py"),
}

CLAIMS = (
    Claim("cartpole", "mpn", at_least=475),
    Claim("tmaze", "mpn", at_least=0.95),
    Claim("tmaze", "mpn-random", at_least=0.95),
    Claim("tmaze", "mpn-frozen", at_most=0.3),  # chance is 0; 0.3 is three standard errors of 100 episodes of +-1
    Claim("tmaze", "mpn-raw", at_most=0.3),
    Claim("match", "mpn", at_least=0.95, of=4),
)

FRESH_SEEDS = (10, 11, 12, 13, 14)  # 100 and up chose the settings; 0 to 4 were met while CartPole's still changed

TIERS = {
    "quick": Tier(
        "all finished methods beside their peer, in under 10 minutes on 2 cores",
        (
            Group("cartpole", ("mpn", "mpn-frozen", "gru", "sb3-dqn"), steps=80_000, eval_every=2_500),
            Group("tmaze", ("mpn", "mpn-frozen", "gru", "sb3-dqn"), steps=25_000, eval_every=2_500),
        ),
        seeds=(0, 1, 2),
    ),
    "learn": Tier(
        "every learning claim, on five seeds",
        (
            Group("cartpole", ("mpn",), steps=100_000, eval_every=2_500),
            Group("tmaze", ("mpn", "mpn-random", "mpn-frozen", "mpn-raw"), steps=50_000, eval_every=2_500),
            Group("match", ("mpn",), steps=50_000, eval_every=2_500),
        ),
        seeds=FRESH_SEEDS,
        claims=CLAIMS,
    ),
    "full": Tier(
        "every method on every task, on five seeds",
        (
            Group("cartpole", ("mpn", "mpn-frozen", "rnn", "gru", "lstm", "sb3-dqn"), 100_000, eval_every=2_500),
            Group("tmaze", tuple(METHODS), 50_000, eval_every=2_500),
            Group("match", ("mpn", "mpn-frozen", "rnn", "gru", "lstm", "sb3-dqn"), 80_000, eval_every=2_500),
        ),
        seeds=FRESH_SEEDS,
        claims=CLAIMS,
    ),
}


def make_job(group: Group, method: str, seed: int, runs: str) -> Job:
    """The two commands of one cell of the table; `runs` is the folder of its run directory."""
    task, how = TASKS[group.task], METHODS[method]
    where = ("--name", f"{group.task}-{method}-s{seed}", "--dir", runs)
    start = (PEER_PYTHON, how.script) if how.script else (how.package,)
    env = f"--env {task.peer_env if how.script else task.env}"
    steps = f"--seed {seed} --total-steps {group.steps} --eval-every {group.eval_every}"
    options = task.peer_options if how.script else f"{task.options} {how.options}"
    score = f"--num-eval-episodes {EVAL_EPISODES} --seed-base {EVAL_SEED_BASE} {env if how.script else ''}"
    train = (*start, "train", *where, *f"{env} {steps} {options}".split())
    return Job(group.task, method, seed, group.steps, train, (*start, "eval", *where, *score.split()), not how.script)


def make_jobs(tier: str, runs: str, only: str = "", seeds: tuple[int, ...] | None = None) -> list[Job]:
    """All jobs of a tier whose method is installed, seed by seed, so that a bench cut short has every cell.

    `only` is a comma-separated list of parts of task and method names. Words that match tasks and words that match
    methods each narrow the choice: `mpn,tmaze` means the mpn methods on the T-maze.
    """
    words = [word for word in only.lower().split(",") if word]
    in_tasks = [word for word in words if any(word in key for key in TASKS)]
    in_methods = [word for word in words if word not in in_tasks]
    return [
        make_job(group, method, seed, runs)
        for seed in seeds or TIERS[tier].seeds
        for group in TIERS[tier].groups
        for method in group.methods
        if METHODS[method].installed()
        and (not in_tasks or any(word in group.task for word in in_tasks))
        and (not in_methods or any(word in method for word in in_methods))
    ]
