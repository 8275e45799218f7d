"""What the tables of suite.py are made of."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEER_PYTHON = ".venv-bench/bin/python"  # of the environment that `make bench` sets up for the peers; relative to ROOT


@dataclass(frozen=True)
class Task:
    """A problem with a bar; `options` go to our methods, `peer_options` to the peer.

    Where one agent learns several tasks, `parts` are their names, and each is reported as the task KEY/PART.
    """

    title: str
    env: str
    peer_env: str = ""  # the same for rlcore.envs.make_env
    bar: float = 0.0  # mean return of a solved task
    about: str = ""
    options: str = ""
    peer_options: str = ""
    episodes: int = 100  # of the final score
    needs: str = ""  # module that its simulator comes with
    parts: tuple[str, ...] = ()
    floor: float = 0.0  # what doing nothing gets
    detail: bool = False  # in reports, not on the front page

    def installed(self) -> bool:
        return not self.needs or importlib.util.find_spec(self.needs) is not None


@dataclass(frozen=True)
class Program:
    """A command line with verbs that train and that score; the templates say what it calls the same things.

    `stage` comes before those verbs, where a program has several. `returns` is the key of the learning curve in "eval"
    rows; with {part} in it, that of each part of a task, which otherwise has "eval_task" rows of its own.
    """

    start: str  # a package, or a script run by the peers' Python
    about: str = ""  # for the report's small print
    train: str = "--env {env} --seed {seed} --total-steps {steps} --eval-every {every}"
    scored: str = "greedy returns of the best checkpoint"  # of each run
    score: str = "--num-eval-episodes {episodes} --seed-base {base}"
    stage: str = ""
    returns: str = "return_mean"
    verbs: tuple[str, str] = ("train", "eval")  # what trains, what scores

    @property
    def is_peer(self) -> bool:
        return self.start.endswith(".py")

    def installed(self) -> bool:
        return (ROOT / PEER_PYTHON).exists() if self.is_peer else importlib.util.find_spec(self.start) is not None


@dataclass(frozen=True)
class Method:
    """A program with options. `cpu_of`: it trains as long as the slowest of these methods did, in CPU seconds.

    `before`: commands that come before training, each with its program. They and the options may name {runs}, the
    folder of the runs, and {name}, the job; what they leave there is called {name}.something.
    """

    title: str
    program: Program
    options: str = ""
    cpu_of: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    def installed(self) -> bool:
        return self.program.installed()


@dataclass(frozen=True)
class Group:
    """Some methods on one task for so many env steps."""

    task: str
    methods: tuple[str, ...]
    steps: int
    eval_every: int
    seeds: tuple[int, ...] | None = None  # None: all of the tier's; otherwise these


@dataclass(frozen=True)
class Claim:
    """What the repository says of the scores of `method` on `task`, in `of` seeds.

    Each is `at_least` or `below` a number, within +- `at_most`, or `recovers` that share of the way between the scores
    of two other methods on the same seed, or is `more` than that of the method `than` on the same seed, by so much;
    with `at`, by what the learning curves say at that env step. Or the seeds' mean area under the learning curve is
    `above` that of another method: the 95 % bootstrap interval of the difference on the same seeds is above 0, and
    there are three seeds or more.
    """

    task: str
    method: str
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None
    recovers: float | None = None
    between: tuple[str, str] = ("", "")
    more: float | None = None
    than: str = ""
    at: int | None = None
    above: str = ""
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
    after: tuple[str, ...] = ()  # names of jobs whose cost it reads
    before: tuple[tuple[str, ...], ...] = ()  # commands to run first; what they cost is the job's cost

    @property
    def name(self) -> str:
        return job_name(self.task, self.method, self.seed)


def job_name(task: str, method: str, seed: int) -> str:
    """Also the name of the run's directory."""
    return f"{task}-{method}-s{seed}"
