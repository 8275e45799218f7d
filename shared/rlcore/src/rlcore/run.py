"""A run directory and the life of a run in it: open, resume, log, save, stop on signals, finish.

    with Run.open(cfg, program="mpn", total=cfg.total_steps, stride=cfg.num_envs) as run:
        step = run.restore(agent=agent, envs=envs, buffer=buffer)   # 0 for a new run
        while run.going(step):
            ...
            if run.due("save", step):
                run.save(step, agent=agent, envs=envs, buffer=buffer)
        return run.finish(step, agent=agent, envs=envs, buffer=buffer)

A part is anything with `state_dict` and `load_state_dict`; a replay buffer has `save(folder)`,
`load(folder, cursor)` and `prune(folder, cursors)` instead. A part that is None is left out.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from rlcore import checkpoint, files, seeding
from rlcore.config import FREE_ON_RESUME, RunConfig, diff, from_dict, to_dict
from rlcore.errors import DataError, Interrupted, NumericalError, Preempted, QuintetWarning, UsageError
from rlcore.logger import Console, Meters, Mirrors, Phases, Record, rss_mib
from rlcore.provenance import describe_environment, fresh_name, near

LINKS = {"last": ("last.pt",), "best": ("best.pt",), "final": ("final.pt",)}
FOLDERS = ("checkpoints", "replay", "videos", "plots", "analysis")
STATUS_SECONDS = 5.0


class GivenUp(BaseException):
    """A signal came during what can be done again. Not an Exception: what envs raise is caught and told of."""


class Run:
    """One run directory, owned by one process. Made by `Run.open`."""

    def __init__(self, folder: Path, cfg: RunConfig, total: int, stride: int, links: Mapping[str, tuple[str, ...]]):
        self.folder, self.cfg, self.total, self.stride, self.links = folder, cfg, total, stride, links
        self.checkpoints = checkpoint.Checkpoints(folder / "checkpoints", cfg.keep_checkpoints, cfg.keep_every)
        self.record = Record(folder / "metrics.jsonl")
        self.meters, self.phase = Meters(), Phases()
        self.console = Console(folder.name, total, cfg.quiet)
        self.mirrors = Mirrors(folder, to_dict(cfg), tensorboard=cfg.tensorboard, wandb=cfg.wandb)
        self.best: dict[str, Any] = {"score": None, "step": None}
        self._stop: signal.Signals | None = None
        self.asked_to_free = False  # by SIGUSR1, for what a method may forget; it sets this back
        self.unscored, self._scoring = False, False  # an evaluation was given up; one is under way
        self._before = {"wall_s": 0.0, "cpu_s": 0.0}  # clocks of earlier sessions
        self._wall_start, self._cpu_start = time.monotonic(), time.process_time()
        self._last_row = (self._wall_start, 0, 0)  # clock, step and updates at the last train row
        self._status: dict[str, Any] = {"state": "running", "step": 0, "total_steps": total}
        self._status_written = 0.0
        self._cursors: list[Any] = []  # replay cursors of the last saves

    # --- opening and closing ----------------------------------------------------------------------------------------
    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        cfg: RunConfig,
        *,
        program: str,
        total: int,
        stride: int = 1,
        links: Mapping[str, tuple[str, ...]] = LINKS,
        may_change: frozenset[str] = frozenset(),
        facts: Mapping[str, Any] | None = None,
    ) -> Iterator[Run]:
        """Own the run directory of `cfg`, new or to be continued, while inside.

        Args:
            total: env steps the run will take. stride: env steps of one loop turn (the number of envs).
            links: file names that point to the last, best and final checkpoint.
            may_change: options that may differ from the earlier session, besides those that only change what is shown.
            facts: for env.json, besides versions and machine: env id, action repeat, success rule, ...
        Raises: UsageError when the name is taken and may not be resumed; DataError when the directory is damaged;
            EnvironmentProblem when it cannot be written.
        """
        folder = cfg.dir / (cfg.name or fresh_name(cfg.dir))
        with files.explained(folder):
            if cfg.resume == "must" and (cfg.overwrite or not (folder / "config.json").exists()):
                why = "--overwrite begins anew" if cfg.overwrite else f"there is no run {folder}{near(folder)}"
                raise UsageError(f"--resume must: {why}")
            if cfg.overwrite and folder.exists():
                files.set_aside(folder)
            for name in FOLDERS:
                (folder / name).mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            with files.explained(folder):
                stack.enter_context(files.locked(folder))
                _check_same_config(folder, cfg, program, FREE_ON_RESUME | may_change)
                for name in (".", *FOLDERS):
                    files.sweep_temporaries(folder / name)
                record = {"program": program, "config": to_dict(cfg), "command": sys.argv}
                files.write_json(folder / "config.json", record)
                environment = {**describe_environment(program), "seed": cfg.seed, **(facts or {})}
                files.write_json(folder / "env.json", environment)
                run = cls(folder, cfg, total, stride, links)
            stack.enter_context(run._reported())
            stack.enter_context(_handlers(run.ask_to_stop, run._free_memory, run._print_status))
            yield run

    def ask_to_stop(self, number: int, frame: FrameType | None = None) -> None:
        """What SIGTERM and Ctrl-C do: the run saves at its next step, or update, and stops. A method may, too."""
        if number == signal.SIGINT and self._stop == signal.SIGINT:
            os.write(2, b"\nstopped at once; the last checkpoint is untouched\n")
            os._exit(130)
        self._stop = signal.Signals(number)
        os.write(2, f"\n{self._stop.name}: saving, then stopping\n".encode())
        if self._scoring:
            raise GivenUp

    def _free_memory(self, number: int, frame: FrameType | None) -> None:
        self.asked_to_free = True
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        os.write(2, f"memory freed: {rss_mib():.0f} MiB in use\n".encode())

    def _print_status(self, number: int, frame: FrameType | None) -> None:
        self._write_status()
        os.write(2, f"{self.folder / 'status.json'}: {self._status}\n".encode())

    def _write_status(self) -> None:
        self._status_written = time.monotonic()
        owner = {"pid": os.getpid(), "host": socket.gethostname()}
        with contextlib.suppress(OSError):  # a view, not a record: never a reason to stop
            files.write_json(self.folder / "status.json", {**self._status, **owner})

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Say in status.json how the run ended, whatever ends it."""
        state = "failed"
        self._write_status()
        try:
            yield
            state = "finished"
        except (Preempted, Interrupted, KeyboardInterrupt):
            state = "preempted"
            raise
        finally:
            self._status["state"] = state
            self._write_status()
            self.console.close()
            self.mirrors.close()
            self.record.close()

    # --- randomness -------------------------------------------------------------------------------------------------
    def seed(self, *path: str | int) -> int:
        """The seed of the stream `path` of this run."""
        return seeding.derive(self.cfg.seed, *path)

    def numpy_generator(self, *path: str | int) -> np.random.Generator:
        return seeding.numpy_generator(self.cfg.seed, *path)

    # --- the loop ---------------------------------------------------------------------------------------------------
    def going(self, step: int) -> bool:
        """Whether to take another turn: not after the last step, nor once a signal has asked for a stop."""
        self._status["step"] = step
        return self._stop is None and step < self.total

    def due(self, what: str, step: int) -> bool:
        """Whether `{what}_every` env steps have passed since this was last true: once a period, and stateless."""
        every: int = getattr(self.cfg, f"{what}_every")
        return step % every < self.stride

    def train_row(self, step: int, updates: int, **values: Any) -> None:
        """Log a train row: the meters' means, `values` (None is left out), and rates since the last row."""
        now = time.monotonic()
        clock, last_step, last_updates = self._last_row
        seconds = max(now - clock, 1e-9)
        self._last_row = (now, step, updates)
        row = {"updates": updates, **values, **self.meters.read()}
        rates = {"env_steps_per_s": (step - last_step) / seconds, "updates_per_s": (updates - last_updates) / seconds}
        written = self.log("train", step, {**row, **rates, "rss_mib": rss_mib()})
        self.console.progress(step, written, self.phase.shares(seconds))
        if now - self._status_written > STATUS_SECONDS:
            self._write_status()

    def log(self, kind: str, step: int, row: Mapping[str, Any]) -> dict[str, Any]:
        """Append a row to the record and its mirrors. The clocks count all sessions of the run together."""
        values = {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items() if v is not None}
        if bad := [k for k, v in values.items() if isinstance(v, float) and not np.isfinite(v)]:
            self.diverged(step, " and ".join(bad), {})
        written = {"kind": kind, "step": step, **values, **{k: round(v, 3) for k, v in self._clocks().items()}}
        with self.saving("metrics.jsonl"):
            self.record.append(written)
        self.mirrors.write(written)
        self._status.update(written if kind == "train" else {kind: written})
        return written

    def diverged(self, step: int, what: str, dump: Mapping[str, Any]) -> None:
        """Stop because `what` is not finite, after writing `dump` (tensors) where it can be looked at."""
        path = self.folder / "analysis" / f"nonfinite_step_{step:09d}.pt"
        with self.saving("dump"):
            checkpoint.save(path, {"what": what, "step": step, **dump})
        kept = self.checkpoints.steps()
        last = f"last good checkpoint: step {kept[-1]:,}" if kept else "no checkpoint had been written yet"
        raise NumericalError(f"{what} is not finite at step {step:,}; {last}; see {path}; a lower --lr often helps")

    def _clocks(self) -> dict[str, float]:
        wall, cpu = time.monotonic() - self._wall_start, time.process_time() - self._cpu_start
        return {"wall_s": self._before["wall_s"] + wall, "cpu_s": self._before["cpu_s"] + cpu}

    # --- saving and resuming ----------------------------------------------------------------------------------------
    def save(self, step: int, **parts: Any) -> None:
        """Save everything that shapes the future as the checkpoint of `step`; one already there is kept."""
        self._save(step, parts)

    def save_anew(self, step: int, **parts: Any) -> None:
        """The same, in place of one that is already there."""
        self._save(step, parts, anew=True)

    def _save(self, step: int, parts: Mapping[str, Any], anew: bool = False) -> None:
        with self.saving("checkpoint"):
            there = self.checkpoints.path(step).exists()
            if anew and there:
                self._cursors = self._cursors[:-1]  # the one that is about to be replaced
            if anew or not there:
                self.checkpoints.save(step, self._state(step, parts))
            self.checkpoints.link(step, *self.links["last"])
            self.checkpoints.rotate()
            for part in parts.values():
                if hasattr(part, "prune"):
                    part.prune(self.folder / "replay", self._cursors)

    def score(self, step: int, evaluate: Callable[[], float], **parts: Any) -> None:
        """Evaluate, then `save_if_best`. A signal ends the evaluation at once, and what it logged is forgotten.

        Whoever goes on with the run finds it `unscored`, and scores that step before anything else.
        """
        again, length = self.unscored, self.record.length
        self.unscored = True
        if self._stop is not None:
            return
        try:
            try:
                self._scoring = True
                score = evaluate()
            finally:
                self._scoring = False
        except GivenUp:
            self._scoring = False
            self.record.cut(length)
            return
        self.unscored = False
        if again:
            self.save_anew(step, **parts)  # what is there says that the evaluation is still to come
        self.save_if_best(step, score, **parts)

    def save_if_best(self, step: int, score: float, **parts: Any) -> bool:
        """Save and link as the best so far when `score` is at least the best score (the later wins a tie)."""
        if self.best["score"] is not None and score < self.best["score"]:
            return False
        self.best = {"score": score, "step": step}
        self.save(step, **parts)
        with self.saving("checkpoint"):
            self.checkpoints.link(step, *self.links["best"])
        return True

    def _state(self, step: int, parts: Mapping[str, Any]) -> dict[str, Any]:
        # Replay and record are made durable first, for the checkpoint points into them.
        states: dict[str, Any] = {}
        for name, part in parts.items():
            if hasattr(part, "prune"):
                states[name] = part.save(self.folder / "replay")
                self._cursors = [*self._cursors, states[name]][-self.cfg.keep_checkpoints :]
            elif part is not None:
                states[name] = part.state_dict()
        if bad := checkpoint.nonfinite(states, "checkpoint"):
            self.diverged(step, bad, {})
        return {
            "config": to_dict(self.cfg),
            "parts": states,
            "record": self.record.sync(),
            "meters": self.meters.state_dict(),
            "best": self.best,
            "unscored": self.unscored,
            "clocks": self._clocks(),
            "machine": self._machine(),
            "rng": seeding.global_state(),
        }

    def _machine(self) -> dict[str, Any]:
        return {"device": self.cfg.device, "threads": torch.get_num_threads(), "torch": torch.__version__}

    def restore(self, **parts: Any) -> int:
        """Load the newest checkpoint that fits into `parts`; returns its step, or 0 with nothing loaded."""
        unfit: list[tuple[int, Exception]] = []
        for state in self.checkpoints.newest_first():
            try:
                self._load(state, parts)
            except (DataError, KeyError, TypeError, ValueError, RuntimeError) as error:
                unfit.append((state["step"], error))
                continue
            for step, why_not in unfit:  # the run goes on from before them
                self.checkpoints.reject(step, why_not)
            self.console.say(f"{self.folder}: resuming at step {state['step']:,} of {self.total:,}")
            return int(state["step"])
        if unfit:  # sound files, which something else may well read: none is touched
            step, why_not = unfit[0]
            raise DataError(f"the checkpoint of step {step:,} in {self.folder} does not load: {why_not}") from why_not
        if any(self.checkpoints.folder.glob("*.bad")):
            raise DataError(f"no checkpoint in {self.checkpoints.folder} can be used; start anew with --overwrite")
        self.record.cut(0)
        seeding.seed_globals(self.cfg.seed)
        return 0

    def _load(self, state: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
        self._cursors = []
        for name, part in parts.items():
            if part is None:
                continue
            if name not in state["parts"]:
                raise DataError(f"the checkpoint of step {state['step']} holds no {name}")
            if hasattr(part, "prune"):
                part.load(self.folder / "replay", state["parts"][name])
                self._cursors.append(state["parts"][name])
            else:
                part.load_state_dict(state["parts"][name])
        if changes := diff(state["machine"], self._machine()):
            message = f"resumed on other ground ({'; '.join(changes)}): going on, but not bit for bit"
            warnings.warn(message, QuintetWarning, stacklevel=3)
        self.record.cut(state["record"])
        self.meters.load_state_dict(state["meters"])
        self._before, self.best, self.unscored = state["clocks"], state["best"], state.get("unscored", False)
        if self.best["step"] is not None and self.checkpoints.path(self.best["step"]).exists():
            self.checkpoints.link(self.best["step"], *self.links["best"])  # a kill may have come before the link
        self._last_row = (time.monotonic(), int(state["step"]), int(state["parts"].get("agent", {}).get("updates", 0)))
        seeding.set_global_state(state["rng"])

    def finish(self, step: int, **parts: Any) -> Path:
        """Save; then return the directory if the run is complete, raise Preempted or Interrupted if a signal came."""
        # Learning may have gone on since this step was saved; the best one stays what was scored.
        self._save(step, parts, anew=self._stop is not None and step != self.best["step"])
        if self._stop is not None and (self.unscored or step < self.total):
            how = f"--name {self.folder.name}{' and without --overwrite' * self.cfg.overwrite}"
            again = f"saved at step {step:,} in {self.folder}; the same command with {how} goes on"
            raise (Interrupted if self._stop == signal.SIGINT else Preempted)(again)
        with self.saving("checkpoint"):
            self.checkpoints.link(step, *self.links["final"])
        self.console.say(f"{self.folder}: finished at step {step:,} after {self._clocks()['wall_s']:.0f} s")
        return self.folder

    @contextlib.contextmanager
    def saving(self, what: str) -> Iterator[None]:
        """Turn a failed write into one clear line; with --on-save-error continue, into a warning."""
        try:
            yield
        except OSError as error:
            problem = files.problem(error, self.folder)
            if self.cfg.on_save_error == "stop":
                raise problem from error
            warnings.warn(f"{what} not saved, going on: {problem}", QuintetWarning, stacklevel=4)


@contextlib.contextmanager
def _handlers(stop: Callable[..., Any], free: Callable[..., Any], status: Callable[..., Any]) -> Iterator[None]:
    """SIGTERM, Ctrl-C: stop at the next step. SIGUSR1: free memory. SIGUSR2: print the status."""
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGUSR1: free, signal.SIGUSR2: status}
    if threading.current_thread() is not threading.main_thread():
        handlers = {}  # Python lets the main thread alone handle signals
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_same_config(folder: Path, cfg: RunConfig, program: str, free: frozenset[str]) -> None:
    if not (path := folder / "config.json").exists():
        return
    if cfg.resume == "never":
        raise UsageError(f"{folder} exists and --resume never was given: use another --name, or --overwrite")
    before = files.read_json(path)
    if not isinstance(before, dict) or not isinstance(before.get("config"), dict):
        raise DataError(f"{path} is not a run's configuration: use another --name, or --overwrite")
    if before.get("program") != program:
        raise UsageError(f"{folder} is a run of {before.get('program')}, not of {program}: use another --name")
    known = to_dict(from_dict(type(cfg), before["config"], str(path)))  # options that are new have their defaults
    old, new = ({k: v for k, v in c.items() if k not in free} for c in (known, to_dict(cfg)))
    begun = any((folder / "checkpoints").glob("step_*"))  # before that there is nothing that other options could spoil
    if begun and (changes := diff(old, new)):
        raise UsageError(
            f"{folder} was run with other options ({'; '.join(changes)}): use another --name, or --overwrite"
        )
