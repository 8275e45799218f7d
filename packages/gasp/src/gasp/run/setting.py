"""What a high-level agent works in: a task, and the skills of a skill run that fit it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gasp import envs
from gasp.agent import Agent, make_squash
from gasp.config import EnvSpec
from gasp.config_rl import RLConfig
from gasp.hierarchy import Components
from gasp.kitchen_obs import SIZES
from gasp.run import saved
from gasp.run.saved import Skills
from rlcore.errors import UsageError
from rlcore.files import explained, write_atomic
from rlcore.vecenv import VecEnv

COPY = "skills.pt"  # in the run's folder: what it uses stays what it was when the skill run goes on or moves


@dataclass(frozen=True)
class Setting:
    """A task and skills for it."""

    cfg: RLConfig
    spec: EnvSpec
    skills: Skills
    components: Components | None  # None without a mixture

    @property
    def horizon(self) -> int:
        """H, env steps of a skill."""
        return self.skills.cfg.model.horizon

    def make(self, num_envs: int, seed: int, first_env: int = 0) -> VecEnv:
        """Envs of the task."""
        options = options_of(self.cfg, self.skills)
        return envs.make(self.cfg.task, num_envs, seed=seed, first_env=first_env, backend=self.cfg.backend, **options)

    def agent(self, seed: int, where: Any) -> Agent:
        """An agent that knows no more than the skills do."""
        squash = make_squash(self.cfg.agent, self.skills.mixture)
        return Agent(self.cfg.agent, self.skills.model, squash, seed, where)

    def facts(self) -> dict[str, Any]:
        """For env.json: what the run is of."""
        latent = self.skills.cfg.latent_prior
        method = {"dpmm": "gasp", "gaussian": "spirl"}[latent] if self.cfg.agent.regulariser == "prior" else "no prior"
        return {
            "stage": "rl", "env": self.cfg.task, "method": method, "latent_prior": latent,
            "subtasks": list(self.spec.subtasks), "episode_length": self.spec.episode_length,
            "obs_dim": self.spec.obs_dim, "action_dim": self.spec.action_dim, "obs_mode": self.spec.obs_mode,
            "horizon": self.horizon, "latent_dim": self.skills.cfg.model.latent_dim,
            "components": self.components.number if self.components else 0, "action_repeat": 1,
        }  # fmt: skip


def options_of(cfg: RLConfig, skills: Skills) -> dict[str, Any]:
    """Of the envs. A kitchen shows what the skills have learnt to see."""
    if not cfg.task.startswith("kitchen"):
        return {}
    return {"obs_mode": str(skills.facts.get("obs_mode")), "task_order": cfg.task_order, "noise": cfg.noise}


def open_setting(cfg: RLConfig) -> Setting:
    """The setting that `cfg` asks for, with the skills that its run has already, if there is such a run.

    Raises: UsageError where the skills do not fit the task, naming every field; what `load_skills` raises.
    """
    copy = cfg.dir / (cfg.name or "") / COPY
    path = copy if cfg.name and not cfg.overwrite and copy.exists() else saved.find(cfg.skills, cfg.skills_checkpoint)
    return fitted(cfg, saved.read_skills(path))


def fitted(cfg: RLConfig, skills: Skills) -> Setting:
    """The skills beside their task; refused where they do not fit it."""
    options, model = options_of(cfg, skills), skills.cfg.model
    if options.get("obs_mode") not in SIZES:
        options.pop("obs_mode", None)  # skills of another world: let the task say what it shows
    spec = envs.describe(cfg.task, **options)
    pairs = {
        "obs_dim": (skills.facts["obs_dim"], spec.obs_dim), "action_dim": (skills.facts["action_dim"], spec.action_dim),
        "obs_mode": (skills.facts.get("obs_mode"), spec.obs_mode),
    }  # fmt: skip
    wrong = [f"{name} is {theirs} in the skills, {ours} in the task" for name, (theirs, ours) in pairs.items()
             if theirs != ours]  # fmt: skip
    if model.horizon > spec.episode_length:
        wrong.append(f"horizon is {model.horizon} in the skills, an episode has {spec.episode_length} steps")
    if wrong:
        raise UsageError(
            f"{cfg.skills} does not fit {cfg.task}: {'; '.join(wrong)}; learn skills from data of the task"
        )
    if cfg.latent_prior not in ("any", skills.cfg.latent_prior):
        made = f"its skills were trained with --latent-prior {skills.cfg.latent_prior}"
        raise UsageError(f"{cfg.skills}: {made}, this run wants {cfg.latent_prior}")
    mixture = skills.mixture
    return Setting(cfg, spec, skills, Components(mixture) if mixture is not None else None)


def keep_copy(folder: Path, skills: Skills) -> None:
    """Leave the skills' checkpoint in the run's folder, unless it is there."""
    if not (folder / COPY).exists():
        with explained(folder):
            data = skills.checkpoint.read_bytes()
            write_atomic(folder / COPY, lambda file: file.write(data))
