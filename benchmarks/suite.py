"""What the benchmarks run: tasks, methods, tiers, claims. All of it is in this file; nothing here starts anything.

A job is one (task, method, seed): a command that trains, and one that scores an agent on fresh episodes.
A method that is not installed is not in the table. Settings were found on seeds >= 100. Claims are measured on seeds
that were not met before. The quick tier claims nothing: mpn met its seeds 0 to 2, taskinfer 0, while settings changed.
"""

from __future__ import annotations

from benchmarks.kinds import PEER_PYTHON, Claim, Group, Job, Method, Program, Task, Tier, job_name

EVAL_SEED_BASE = 20_000  # training evaluates on other env seeds, below 20,000

# --- tasks ------------------------------------------------------------------------------------------------------------
SB3_ZOO = (  # the settings stable-baselines3's own zoo tuned for CartPole-v1
    "--learning-rate 2.3e-3 --batch-size 64 --buffer-size 100000 --learning-starts 1000 --target-update 10 "
    "--train-freq 256 --gradient-steps 128 --exploration-fraction 0.16 --exploration-final 0.04"
)
IN_CONTROL = "DeepMind Control, 500 agent steps of two simulator steps, at most 1,000."
TOGETHER = "One agent learns four tasks; this is one of them."


def control(title: str, name: str, bar: float, about: str) -> Task:
    """A task of DeepMind Control. Planned episodes are slow, so fewer of them make the score."""
    return Task(
        title, name, f"prismatic.envs.dmc:{name}", bar, f"{about} {IN_CONTROL}", episodes=10, needs="dm_control"
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
    "cartpole-balance": control("Cartpole balance", "cartpole-balance", 900, "Keep a pole upright: random is 299."),
    "pendulum-swingup": control("Pendulum swing-up", "pendulum-swingup", 600, "Swing a weak pendulum up: random is 0."),
    "reacher-easy": control("Reacher easy", "reacher-easy", 800, "Touch a place with a two-link arm: random is 75."),
    "mt4": Task(
        "Four tasks",
        "mt4",
        episodes=10,
        needs="dm_control",
        parts=("cartpole-balance", "pendulum-swingup", "reacher-easy", "cup-catch"),
    ),
    # Twice what 50 random episodes get (299, 0.4, 75, 87); 200 for the pendulum, whose random return is nothing.
    "mt4/cartpole-balance": control("Four at once: cartpole balance", "cartpole-balance", 600, TOGETHER),
    "mt4/pendulum-swingup": control("Four at once: pendulum swing-up", "pendulum-swingup", 200, TOGETHER),
    "mt4/reacher-easy": control("Four at once: reacher easy", "reacher-easy", 150, TOGETHER),
    "mt4/cup-catch": control("Four at once: ball in cup", "cup-catch", 175, TOGETHER),
    "toy": Task(
        title="Toy, held-out tasks",
        env="toy1d",
        bar=-15,
        floor=-200,
        about="Reach a place or run at a speed, either way, told by rewards alone: 40 tasks that training never "
        "saw, 200 steps each. Standing still is -200; the bound of those who know the task is about -6.",
        episodes=1,  # of each task
    ),
    "cheetah": Task(
        title="Cheetah's low level",
        env="cheetah",
        about="HalfCheetah-v5 follows sub-goals.",
        episodes=10,  # of each sub-goal
        needs="mujoco",
        parts=("goal", "velocity", "chain"),
    ),
    "cheetah/goal": Task("Cheetah: near goals", "cheetah", bar=0.8, about="Share of goals of ±0.5 to ±1.5 m reached."),
    "cheetah/velocity": Task(
        "Cheetah: speeds", "cheetah", bar=0.8, about="Share of speeds of ±1 to ±2 m/s kept, within 0.35 m/s on average."
    ),
    "cheetah/chain": Task(
        "Cheetah: far goals", "cheetah", bar=0.8, about="Share of goals of ±5 m reached, in a chain."
    ),
    "maze": Task(
        title="Maze",
        env="maze-medium:3,4",
        bar=0.8,
        about="Push a point to a cell five away, within 300 steps: 1 for getting there, nothing else. Skills of ten "
        "steps are learnt first, from 20,000 steps of walks between random cells, without rewards.",
        episodes=50,
        needs="gymnasium_robotics",
    ),
}

FIVE = ("reach-v3", "push-v3", "drawer-close-v3", "button-press-topdown-v3", "window-open-v3")
TEN = (
    *FIVE, "pick-place-v3", "door-open-v3", "drawer-open-v3", "peg-insert-side-v3", "window-close-v3",
)  # fmt: skip
ONE_OF = "One of the tasks of one policy, told by its code: share of 50 goals never trained on, success at any step."
ARMS = {
    "mean": ("told its code", "told by the code of what it has seen itself do"),
    "task-id": ("told the number", "told the number of its task"),
    "zero": ("told nothing", "told nothing about its task"),
}
for _name, _tasks, _title in (("mt5", FIVE, "Five Meta-World tasks"), ("mt10", TEN, "MT10")):
    TASKS[_name] = Task(
        _title, _name, about="Scripts demonstrate, one policy does them all.", episodes=50, needs="metaworld",
        parts=(*ARMS, *_tasks),
    )  # fmt: skip
    for _part, (_short, _told) in ARMS.items():
        about = f"Mean success of one policy that is {_told}, on goals never trained on."
        TASKS[f"{_name}/{_part}"] = Task(f"{_title}, {_short}", _name, bar=0.8, about=about)
    for _part in _tasks:
        _short = _part.removesuffix("-v3")
        TASKS[f"{_name}/{_part}"] = Task(f"{_title}: {_short}", _name, bar=0.9, about=ONE_OF, detail=True)
TASKS["reach"] = Task(
    "reach-v3", "reach-v3", bar=0.7, about="Share of a task's 50 goals reached by a soft actor-critic, greedy.",
    episodes=50, needs="metaworld", parts=("reach-v3",),
)  # fmt: skip
TASKS["reach/reach-v3"] = Task("reach-v3, an expert", "reach-v3", bar=0.7, about=TASKS["reach"].about)

# --- methods ----------------------------------------------------------------------------------------------------------
MPN = Program(
    "mpn",
    about="mpn and its cores share one learner and schedule and differ in the core; mpn-frozen is mpn whose memory "
    "stays zero, a feed-forward net",
)
PRISMATIC = Program(
    "prismatic",
    about="prismatic plans in a world model of experts, prismatic-dense in TD-MPC2's; both with the preset cpu, or mt4 "
    "for four tasks at once",
    train="--task {env} --seed {seed} --steps {steps} --eval-every {every}",
    score="--eval-episodes {episodes} --seed-base {base}",
)
TOY = Program(
    "taskinfer",
    about="taskinfer infers the task from rewards; its arms told and untold know the truth and nothing; its critics, "
    "which play no part after training, are told it, and half of its episodes are paid anew for other targets",
    train="--toy {env} --seed {seed} --total-steps {steps} --eval-every {every}",
    score="--repeats {episodes} --seed-base {base}",
    stage="toy",
    returns="test_return",
)
LOW = Program(
    "taskinfer",
    about="taskinfer's low level is a soft actor-critic with the preset cpu",
    train="--body {env} --seed {seed} --steps {steps} --eval-every {every}",
    score="--repeats {episodes} --seed-base {base}",
    stage="low",
    returns="{part}_reached",
)
GASP = Program(
    "gasp",
    about="gasp and its arms learn skills from the same walks: under a mixture, or under N(0, I) as SPiRL does; "
    "costs include the walks and the skills",
    train="--task {env} --seed {seed} --steps {steps} --eval-every {every}",
    score="--episodes {episodes} --seed-base {base} --checkpoint final --score drawn",
    scored="returns of drawn skills by the last agent",
    stage="rl",
    returns="drawn_return_mean",
)
COLLECTIVE = Program(
    "collective",
    about="collective is distilled from scripted experts; costs include its data and its encoder",
    train="--data {runs}/{name}.data --seed {seed} --updates {steps} --eval-every {every}",
    score="--episodes {episodes} --goal-seed {base} --quiet",
    scored="share of successful episodes of the last policy",
    returns="success_{part}",
    verbs=("distill", "evaluate"),
)
WORKER = Program(
    "collective",
    about="collective's experts are soft actor-critics",
    train="--tasks {env} --seed {seed} --steps {steps} --eval-every {every}",
    score="--policy expert --episodes {episodes} --goal-seed 0 --quiet",
    scored="share of a task's goals reached by the best checkpoint",
    returns="success/{part}",
    verbs=("train-worker", "evaluate"),
)
SB3_DQN = Program(
    "benchmarks/peers/sb3_dqn.py",
    about="stable-baselines3 DQN has the settings its own zoo found for CartPole-v1, elsewhere its defaults",
    score="--num-eval-episodes {episodes} --seed-base {base} --env {env}",
)
SB3_SAC = Program(
    "benchmarks/peers/sb3_sac.py",
    about="stable-baselines3 SAC has its defaults; it gets the env steps of ours, and once more the CPU seconds that "
    "the slower of ours took on the same seed, evaluations included",
    score="--num-eval-episodes {episodes} --seed-base {base} --env {env}",
)


def on_skills(title: str, rl: str, skills: str = "", options: str = "") -> Method:
    """gasp with skills learnt as part of the job. rl, skills: presets; the second is the first unless given."""
    walks = "gasp data collect maze --out {runs}/{name}.h5 --seed {seed} --quiet"
    learn = "gasp skills train --preset " + (skills or rl) + " --data {runs}/{name}.h5 --seed {seed}"
    before = (walks, learn + " --name {name}.skills --dir {runs}")
    return Method(title, GASP, f"--preset {rl} --skills {{runs}}/{{name}}.skills {options}", before=before)


def from_scripts(title: str, record: str, encoder: str, distill: str) -> Method:
    """collective with its data and its encoder learnt as part of the job."""
    where = "--seed {seed} --quiet --dir {runs} --name {name}"
    before = (
        f"collective record --preset cpu --benchmark {{env}} {where}.data {record}",
        f"collective train-encoder --preset cpu --data {{runs}}/{{name}}.data {where}.encoder {encoder}",
    )
    options = f"--encoder {{runs}}/{{name}}.encoder {distill}"
    return Method(title, COLLECTIVE, options, before=before)


METHODS = {
    "mpn": Method("mpn", MPN, "--core mpn"),
    "mpn-random": Method("mpn (random map)", MPN, "--core mpn --input-map random"),
    "mpn-raw": Method("mpn (raw input)", MPN, "--core mpn --input-map none"),
    "mpn-frozen": Method("mpn-frozen", MPN, "--core mpn-frozen"),
    "rnn": Method("rnn", MPN, "--core rnn"),
    "gru": Method("gru", MPN, "--core gru"),
    "lstm": Method("lstm", MPN, "--core lstm"),
    "sb3-dqn": Method("stable-baselines3 DQN", SB3_DQN),
    "prismatic": Method("prismatic", PRISMATIC, "--preset cpu --eval-episodes 5"),
    "prismatic-dense": Method("prismatic (dense)", PRISMATIC, "--preset cpu --eval-episodes 5 --no-use-moe"),
    "prismatic-mt4": Method("prismatic", PRISMATIC, "--preset mt4 --eval-episodes 5"),
    "prismatic-mt4-dense": Method("prismatic (dense)", PRISMATIC, "--preset mt4 --eval-episodes 5 --no-use-moe"),
    "taskinfer": Method("taskinfer", TOY, "--preset toy1d-cpu --arm inferred"),
    "taskinfer-oracle": Method("taskinfer (told)", TOY, "--preset toy1d-cpu --arm oracle"),
    "taskinfer-none": Method("taskinfer (untold)", TOY, "--preset toy1d-cpu --arm none"),
    "taskinfer-low": Method("taskinfer, low level", LOW, "--preset cpu"),
    "gasp": on_skills("gasp", "maze/gasp"),
    "spirl": on_skills("gasp (SPiRL)", "maze/spirl"),
    "gasp-none": on_skills("gasp (no prior)", "maze/none", "maze/spirl"),
    "gasp-prior": on_skills("gasp, skill prior alone", "maze/gasp", options="--updates-per-skill 0"),
    "spirl-prior": on_skills("SPiRL, skill prior alone", "maze/spirl", options="--updates-per-skill 0"),
    "collective": from_scripts("collective", "", "--updates 500", "--preset cpu"),
    "collective-mt10": from_scripts("collective", "", "--updates 1000", "--preset mt10"),
    "collective-quick": from_scripts(
        "collective", "--steps 3000", "--updates 250", "--preset cpu --round-steps 2000 --critic-updates 100"
    ),
    "collective-worker": Method("collective, an expert", WORKER, "--preset cpu"),
    "sb3-sac": Method("stable-baselines3 SAC", SB3_SAC, "--eval-episodes 5"),
    "sb3-sac-cpu": Method(
        "stable-baselines3 SAC (CPU)", SB3_SAC, "--eval-episodes 5", cpu_of=("prismatic", "prismatic-dense")
    ),
}

# --- tiers ------------------------------------------------------------------------------------------------------------
MPN_CLAIMS = (
    Claim("cartpole", "mpn", at_least=475),
    Claim("tmaze", "mpn", at_least=0.95),
    Claim("tmaze", "mpn-random", at_least=0.95),
    Claim("tmaze", "mpn-frozen", at_most=0.3),  # chance is 0; 0.3 is three standard errors of 100 episodes of +-1
    Claim("tmaze", "mpn-raw", at_most=0.3),
    Claim("match", "mpn", at_least=0.95, of=4),
)
MPN_CORES = tuple(key for key, how in METHODS.items() if how.program is MPN)
MPN_SEEDS = (10, 11, 12, 13, 14)  # 100 and up chose the settings; 0 to 4 were met while CartPole's still changed

BOTH, BOTH_MT4 = ("prismatic", "prismatic-dense"), ("prismatic-mt4", "prismatic-mt4-dense")
PRISMATIC_SEEDS = (31, 32, 33)  # 20 to 23 were met with other random steps at the start
MT4_SEEDS = (37, 38, 39)  # 31 and 32 were met with the preset cpu, 34 to 36 before obs_norm
BALANCE_STEPS, PENDULUM_STEPS, REACHER_STEPS = 18_000, 20_000, 30_000  # agent steps
MT4_STEPS = 48_000  # agent steps of all four tasks together
QUICK_STEPS = 8_000  # agent steps of the quick tier
SINGLE = ("cartpole-balance", "pendulum-swingup", "reacher-easy")
PRISMATIC_CLAIMS = tuple(Claim(task, method, at_least=TASKS[task].bar) for task in SINGLE for method in BOTH)
MT4_CLAIMS = tuple(
    Claim(f"mt4/{part}", method, at_least=TASKS[f"mt4/{part}"].bar)
    for part in TASKS["mt4"].parts
    for method in BOTH_MT4
)

TOY_ARMS = ("taskinfer", "taskinfer-oracle", "taskinfer-none")
TOY_STEPS, LOW_STEPS = 960_000, 150_000
TASKINFER_SEEDS = (10, 11, 12, 13, 14)  # 100 and up chose the settings; 0 was met on the way
TASKINFER_CLAIMS = (
    Claim("toy", "taskinfer-oracle", at_least=TASKS["toy"].bar),
    Claim("toy", "taskinfer-none", below=-150),
    Claim("toy", "taskinfer", recovers=0.6, between=("taskinfer-none", "taskinfer-oracle")),
    *(Claim(f"cheetah/{part}", "taskinfer-low", at_least=0.8) for part in TASKS["cheetah"].parts),
)

GASP_SEEDS = (10, 11, 12, 13, 14)  # 100 and up chose the settings
MAZE_STEPS, PRIOR_STEPS = 50_000, 1_000
GASP_CLAIMS = tuple(
    claim
    for method in ("gasp", "spirl")
    for claim in (
        Claim("maze", method, at_least=0.8),
        Claim("maze", method, more=0.25, than=f"{method}-prior"),
        # Half way: given all of the steps, the agent without a prior may get there, too.
        Claim("maze", method, more=0.25, than="gasp-none", at=MAZE_STEPS // 2),
        Claim("maze", method, above="gasp-none"),
    )
)

COLLECTIVE_SEEDS = (10, 11, 12, 13, 14)  # 100 and up chose the settings
WORKER_SEEDS = (13, 14, 15)  # 10 to 12 were met with other settings
DISTIL_STEPS, MT10_DISTIL_STEPS, WORKER_STEPS = 5_000, 9_000, 30_000  # updates, updates, env steps
EASY = ("drawer-close-v3", "button-press-topdown-v3", "window-open-v3")
COLLECTIVE_CLAIMS = (
    Claim("mt5/mean", "collective", at_least=0.85),
    *(Claim(f"mt5/{task}", "collective", at_least=0.9) for task in EASY),
    Claim("mt10/mean", "collective-mt10", at_least=0.8),
    Claim("reach/reach-v3", "collective-worker", at_least=0.7),
)

TIERS = {
    "quick": Tier(
        "all finished methods beside their peers",
        (
            # The longest jobs first, so that no core waits for them at the end; one seed, so that it stays quick.
            Group("cartpole-balance", (*BOTH, "sb3-sac", "sb3-sac-cpu"), QUICK_STEPS, eval_every=2_000, seeds=(0,)),
            Group("toy", TOY_ARMS, TOY_STEPS, eval_every=80_000, seeds=(0,)),
            Group("maze", ("gasp", "spirl", "gasp-none"), MAZE_STEPS // 2, eval_every=5_000, seeds=(0,)),
            Group("mt5", ("collective-quick",), 2_500, eval_every=1_250, seeds=(0,)),
            Group("cartpole", ("mpn", "mpn-frozen", "gru", "sb3-dqn"), steps=80_000, eval_every=2_500),
            Group("tmaze", ("mpn", "mpn-frozen", "gru", "sb3-dqn"), steps=25_000, eval_every=2_500),
        ),
        seeds=(0, 1, 2),
    ),
    "learn": Tier(
        "every learning claim of mpn, on five seeds",
        (
            Group("cartpole", ("mpn",), steps=100_000, eval_every=2_500),
            Group("tmaze", ("mpn", "mpn-random", "mpn-frozen", "mpn-raw"), steps=50_000, eval_every=2_500),
            Group("match", ("mpn",), steps=50_000, eval_every=2_500),
        ),
        seeds=MPN_SEEDS,
        claims=MPN_CLAIMS,
    ),
    "prismatic": Tier(
        "every learning claim of prismatic on single tasks, on three seeds; takes hours",
        (
            Group("cartpole-balance", BOTH[::-1], BALANCE_STEPS, eval_every=3_000),
            Group("pendulum-swingup", BOTH[::-1], PENDULUM_STEPS, eval_every=3_000),
            Group("reacher-easy", BOTH[::-1], REACHER_STEPS, eval_every=3_000),
        ),
        seeds=PRISMATIC_SEEDS,
        claims=PRISMATIC_CLAIMS,
    ),
    "mt4": Tier(
        "four tasks at once with one agent of prismatic, on three seeds; takes hours",
        (Group("mt4", BOTH_MT4, MT4_STEPS, eval_every=12_000),),
        seeds=MT4_SEEDS,
        claims=MT4_CLAIMS,
    ),
    "taskinfer": Tier(
        "learning claims of taskinfer, on five seeds of the toy and three of the cheetah; about an hour of CPU time",
        (
            Group("cheetah", ("taskinfer-low",), LOW_STEPS, eval_every=30_000, seeds=TASKINFER_SEEDS[:3]),
            Group("toy", TOY_ARMS, TOY_STEPS, eval_every=80_000),
        ),
        seeds=TASKINFER_SEEDS,
        claims=TASKINFER_CLAIMS,
    ),
    "gasp": Tier(
        "learning claims of gasp in the maze, on five seeds; about 40 minutes of CPU time",
        (
            Group("maze", ("gasp", "spirl", "gasp-none"), MAZE_STEPS, eval_every=5_000),
            Group("maze", ("gasp-prior", "spirl-prior"), PRIOR_STEPS, eval_every=PRIOR_STEPS),
        ),
        seeds=GASP_SEEDS,
        claims=GASP_CLAIMS,
    ),
    "collective": Tier(
        "learning claims of collective, on three and five seeds; about two and a half hours of CPU time",
        (
            Group("mt5", ("collective",), DISTIL_STEPS, eval_every=2_500),
            Group("reach", ("collective-worker",), WORKER_STEPS, eval_every=5_000, seeds=WORKER_SEEDS),
            Group("mt10", ("collective-mt10",), MT10_DISTIL_STEPS, eval_every=4_500, seeds=COLLECTIVE_SEEDS[:3]),
        ),
        seeds=COLLECTIVE_SEEDS,
        claims=COLLECTIVE_CLAIMS,
    ),
    "full": Tier(
        "every core of mpn and the peer on every task of mpn, on five seeds",
        (
            Group("cartpole", ("mpn", "mpn-frozen", "rnn", "gru", "lstm", "sb3-dqn"), 100_000, eval_every=2_500),
            Group("tmaze", (*MPN_CORES, "sb3-dqn"), 50_000, eval_every=2_500),
            Group("match", ("mpn", "mpn-frozen", "rnn", "gru", "lstm", "sb3-dqn"), 80_000, eval_every=2_500),
        ),
        seeds=MPN_SEEDS,
        claims=MPN_CLAIMS,
    ),
}


# --- jobs -------------------------------------------------------------------------------------------------------------
def make_job(group: Group, method: str, seed: int, runs: str) -> Job:
    """The two commands of one cell of the table; `runs` is the folder of its run directory."""
    task, how = TASKS[group.task], METHODS[method]
    program = how.program
    where = ("--name", job_name(group.task, method, seed), "--dir", runs)
    start = (PEER_PYTHON, program.start) if program.is_peer else (program.start,)
    values = {"env": task.peer_env if program.is_peer else task.env, "seed": seed, "steps": group.steps}
    values |= {"every": group.eval_every, "episodes": task.episodes, "base": EVAL_SEED_BASE}
    values |= {"runs": runs, "name": job_name(group.task, method, seed)}
    options = f"{task.peer_options if program.is_peer else task.options} {how.options.format(**values)}"
    trains, scores = ((*start, *program.stage.split(), *verb.split(), *where) for verb in program.verbs)
    train = (*trains, *f"{program.train.format(**values)} {options}".split())
    score = (*scores, *program.score.format(**values).split())
    others = tuple(job_name(group.task, other, seed) for other in how.cpu_of)
    if others:
        train = (*train, "--cpu-of", *(f"{runs}/{other}" for other in others))
    before = tuple(tuple(command.format(**values).split()) for command in how.before)
    return Job(group.task, method, seed, group.steps, train, score, not program.is_peer, others, before)


def make_jobs(tier: str, runs: str, only: str = "", seeds: tuple[int, ...] | None = None) -> list[Job]:
    """All jobs of a tier whose method is installed, seed by seed, so that a bench cut short has every cell.

    `only` is a comma-separated list of parts of task and method names. Words that match tasks and words that match
    methods each narrow the choice: `mpn,tmaze` means the mpn methods on the T-maze.
    """
    words = [word for word in only.lower().split(",") if word]
    in_tasks = [word for word in words if any(word in key for key in TASKS)]
    in_methods = [word for word in words if word not in in_tasks]
    groups = TIERS[tier].groups
    return [
        make_job(group, method, seed, runs)
        for seed in seeds or sorted({*TIERS[tier].seeds, *(seed for group in groups for seed in group.seeds or ())})
        for group in groups
        if seed in (seeds or group.seeds or TIERS[tier].seeds) and TASKS[group.task].installed()
        for method in group.methods
        if METHODS[method].installed()
        and (not in_tasks or any(word in group.task for word in in_tasks))
        and (not in_methods or any(word in method for word in in_methods))
    ]
