"""The whole DQN loop on CartPole-v1, ours from the command line with all it does: CPU time an env step.

Both sides: a feed-forward net of 64 tanh units, batch 128, replay of 10,000, one update per 10 env steps, Adam at 1e-3,
one env (and ours once more with its 16), epsilon 0.05, no evaluation, one thread. Ours is double DQN and logs as it
does by default; the peer is neither double nor logged. A run's cost is that of a long run less that of a short one,
both past the first update: start-up, warm-up and the final save cancel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.micro.timing import Row, Side, compare, run

SHORT = 2_000  # env steps; learning starts at 1,000
OURS = """--core mpn-frozen --env CartPole-v1 --hidden-dim 64 --activation tanh --batch-size 128 --sequence-length 1
    --burn-in 0 --buffer-size 10000 --learning-starts 1000 --train-freq 10 --target-update-freq 50 --lr 1e-3
    --lr-end 1e-3 --n-step 1 --huber-delta 1 --epsilon-start 0.05 --epsilon-end 0.05 --eval-every 1000000
    --save-every 1000000"""
PEER = """
import sys, torch
from stable_baselines3 import DQN
torch.set_num_threads(1)
DQN(
    "MlpPolicy", "CartPole-v1", batch_size=128, buffer_size=10_000, learning_starts=1_000, train_freq=10,
    gradient_steps=1, target_update_interval=500, learning_rate=1e-3, exploration_initial_eps=0.05,
    exploration_final_eps=0.05, policy_kwargs={"net_arch": [64], "activation_fn": torch.nn.Tanh}, device="cpu",
    seed=int(sys.argv[2]),
).learn(int(sys.argv[1]))
"""


def main(argv: Sequence[str] | None = None) -> int:
    packages = ("mpn", "rlcore", "torch", "numpy", "gymnasium", "stable-baselines3")
    return run("dqn", "The whole DQN loop on CartPole-v1", measure, packages, argv)


def measure(repetitions: int) -> Iterator[Row]:
    peer_side = ("stable-baselines3 DQN, 1 env", per_step(peer, 22_000))
    for num_envs, long, bar in ((1, 42_000, 3), (16, 82_000, 3)):
        ours_side = (f"mpn train --core mpn-frozen --num-envs {num_envs}", per_step(ours(num_envs), long))
        name = f"one update of 128 per 10 env steps, ours with {num_envs} env{'s' * (num_envs > 1)}"
        yield compare(name, ours_side, peer_side, bar=bar, unit="CPU time an env step", repetitions=repetitions)


def per_step(command: Callable[[int, int], list[str]], long: int) -> Side:
    """A side whose unit is an env step of `command(steps, seed)`. One run beforehand: the first writes bytecode."""
    cpu_seconds(command(SHORT, 0))
    return lambda k: (cpu_seconds(command(long, k)) - cpu_seconds(command(SHORT, k))) / (long - SHORT)


def ours(num_envs: int) -> Callable[[int, int], list[str]]:
    def command(steps: int, seed: int) -> list[str]:
        run_options = f"--name run --dir FOLDER --total-steps {steps} --seed {seed} --num-envs {num_envs}"
        return [sys.executable, "-m", "mpn", "train", *run_options.split(), *OURS.split()]

    return command


def peer(steps: int, seed: int) -> list[str]:
    return [sys.executable, "-c", PEER, str(steps), str(seed)]


def cpu_seconds(command: list[str]) -> float:
    """User and system time of the command and of what it starts, in one thread. FOLDER becomes a fresh folder's path.

    Raises: RuntimeError with its output when it fails.
    """
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w+b") as log:
        argv = [word.replace("FOLDER", folder) for word in command]
        # PYTHONDONTWRITEBYTECODE would have each start compile torch's sources again.
        environ = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(argv)} exited {child.returncode}:\n{log.read().decode()}")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
