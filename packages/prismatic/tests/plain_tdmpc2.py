"""TD-MPC2 and its mixtures written the long way: separate modules, loops over heads, experts, steps and envs.

The same mathematics as the package by another path, from the layer definitions alone: tests compare the two, and
benchmarks take this as the yardstick of a plain eager implementation.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prismatic.agent import Agent, UpdateNoise
from prismatic.moe import MoE
from prismatic.planner import PlanNoise

BINS = torch.linspace(-10, 10, 101)


class Normed(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, act: str = "mish") -> None:
        super().__init__()
        self.linear, self.norm, self.act = plain_linear(weight, bias), nn.LayerNorm(len(scale.flatten())), act
        self.norm.load_state_dict({"weight": scale.flatten(), "bias": shift.flatten()})

    def forward(self, x: Tensor, dropped: Tensor | None = None) -> Tensor:
        x = self.linear(x)
        x = self.norm(x if dropped is None else x * dropped)
        return F.mish(x) if self.act == "mish" else simnorm(x)


def plain_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias.flatten()})
    return layer


def simnorm(x: Tensor) -> Tensor:
    return x.view(*x.shape[:-1], -1, 8).softmax(-1).view(x.shape)


def normed(layer: nn.Module, act: str = "mish") -> Normed:
    return Normed(layer.weight, layer.bias, layer.scale, layer.shift, act)


def stack(layer: nn.Module) -> nn.ModuleList:
    return nn.ModuleList(
        Normed(layer.weight[k], layer.bias[k], layer.scale[k], layer.shift[k]) for k in range(len(layer.weight))
    )


def modified_gram_schmidt(features: list[Tensor]) -> list[Tensor]:
    """u_k = v_k / sqrt(|v_k|^2 + 1e-12), v_k = f_k less its parts along u_1 .. u_{k-1}, one at a time."""
    basis: list[Tensor] = []
    for f in features:
        v = f
        for u in basis:
            v = v - (v * u).sum(-1, keepdim=True) * u
        basis.append(v / (v.square().sum(-1, keepdim=True) + 1e-12).sqrt())
    return basis


class PlainMoE(nn.Module):
    def __init__(self, ours: MoE, head: nn.Module) -> None:
        super().__init__()
        self.gate_in, self.gate_out = normed(ours.gate_in), plain_linear(ours.gate_out.weight, ours.gate_out.bias)
        self.inner, self.outer, self.head = stack(ours.inner), stack(ours.outer), head
        self.orthogonal, self.top_k, self.tau = ours.orthogonal, ours.top_k, float(ours.tau)
        self.p, self.overlap = torch.empty(0), torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.p = (self.gate_out(self.gate_in(x)) / self.tau).softmax(-1)
        if self.top_k:
            least = self.p.sort(-1, descending=True).values[..., self.top_k - 1 : self.top_k]
            self.p = torch.where(self.p >= least, self.p, 0.0)
            self.p = self.p / self.p.sum(-1, keepdim=True)
        features = [outer(inner(x)) for inner, outer in zip(self.inner, self.outer)]
        if self.orthogonal == "features":
            features = [u * math.sqrt(u.shape[-1]) for u in modified_gram_schmidt(features)]
        pairs = itertools.combinations(features, 2)
        self.overlap = torch.stack([F.cosine_similarity(f, g, -1).square().mean() for f, g in pairs]).mean()
        return self.head(sum(self.p[..., k : k + 1] * f for k, f in enumerate(features)))


class PlainModel(nn.Module):
    """The agent's networks as plain modules with the same weights."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        ours = agent.model
        self.agent, self.ours = [agent], [ours]  # in lists, so that they are no submodules
        self.task_emb = None if ours.task_emb is None else nn.Parameter(ours.task_emb.detach().clone())
        self.encoder = nn.Sequential(*map(normed, ours.encoder.hidden), normed(ours.encoder.head, "simnorm"))
        self.dynamics = self.trunk(ours.dynamics, normed(ours.dynamics.head, "simnorm"))
        self.rewards = self.trunk(ours.reward_net, linear(ours.reward_net.head))
        self.policy = self.trunk(ours.policy_net, linear(ours.policy_net.head))
        self.termination = (
            self.trunk(ours.termination_net, linear(ours.termination_net.head)) if ours.episodic else None
        )
        self.critics, self.targets = self.heads(ours.critics), self.heads(ours.target_critics)

    @staticmethod
    def trunk(ours: nn.Module, head: nn.Module) -> nn.Module:
        return PlainMoE(ours, head) if isinstance(ours, MoE) else nn.Sequential(*map(normed, ours.hidden), head)

    @staticmethod
    def heads(ours: nn.Module) -> nn.ModuleList:
        ends = [plain_linear(w, b) for w, b in zip(ours.head.weight, ours.head.bias)]
        parts = zip(stack(ours.first), stack(ours.second), ends)
        return nn.ModuleList(nn.ModuleList(part) for part in parts)

    def join(self, task: Tensor, *parts: Tensor) -> Tensor:
        if self.task_emb is not None:
            e = self.task_emb / self.task_emb.detach().norm(dim=1, keepdim=True).clamp(min=1)
            parts = (*parts, e[task].expand(*parts[0].shape[:-1], -1))
        return torch.cat(parts, -1)

    def q(self, z: Tensor, a: Tensor, task: Tensor, target: bool = False, dropped: Tensor | None = None) -> Tensor:
        x, out = self.join(task, z, a), []
        for k, (first, second, head) in enumerate(self.targets if target else self.critics):
            out.append(head(second(first(x, None if dropped is None else dropped[k]))))
        return torch.stack(out)

    def pi(self, z: Tensor, task: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, raw = self.policy(self.join(task, z)).chunk(2, -1)
        mask = self.ours[0].action_mask[task]
        log_std = (-10 + 6 * (raw.tanh() + 1)) * mask
        mean, noise = mean * mask, noise * mask
        normal = torch.distributions.Normal(mean.double(), log_std.double().exp())
        u = mean.double() + noise.double() * log_std.double().exp()  # in single precision u - mean cancels
        log_prob = (normal.log_prob(u) * mask).sum(-1)
        if self.agent[0].cfg.entropy == "squashed":
            log_prob = log_prob - ((1 - u.tanh().square()).log() * mask).sum(-1)
        return u.tanh().float(), mean.tanh(), (-mask.sum(-1) * log_prob).float()

    @staticmethod
    def value(logits: Tensor) -> Tensor:
        mean = (logits.softmax(-1) * BINS).sum(-1)
        return mean.sign() * (mean.abs().exp() - 1)


def entropy(p: Tensor) -> Tensor:
    """Mean over rows, in nats; 0 ln 0 is 0."""
    return -torch.where(p > 0, p * p.clamp(min=1e-30).log(), 0.0).sum(-1).mean()


def soft_ce(logits: Tensor, x: Tensor) -> Tensor:
    """Cross-entropy of the two-hot code of x (...): for each number on its own bins."""
    position = ((x.sign() * (1 + x.abs()).log()).clamp(-10, 10) + 10) / 0.2
    low = position.floor().clamp(max=99).long()
    weight = position - low
    log_p = logits.log_softmax(-1)
    at = [log_p.gather(-1, i.unsqueeze(-1)).squeeze(-1) for i in (low, low + 1)]
    return -((1 - weight) * at[0] + weight * at[1])


class PlainLearner:
    """The update, with textbook Adam and a loop over time."""

    def __init__(self, agent: Agent) -> None:
        cfg = agent.cfg
        self.cfg, self.net, self.scale = cfg, PlainModel(agent), 1.0
        self.net.targets.requires_grad_(False)
        skip = {*self.net.encoder.parameters(), *self.net.policy.parameters(), *self.net.targets.parameters()}
        rest = [p for p in self.net.parameters() if p not in skip]
        groups = [{"params": self.net.encoder.parameters(), "lr": cfg.lr * cfg.enc_lr_scale}, {"params": rest}]
        self.optimizer = torch.optim.Adam(groups, lr=cfg.lr)
        self.pi_optimizer = torch.optim.Adam(self.net.policy.parameters(), lr=cfg.lr, eps=1e-5)
        self.learnt = [*self.net.encoder.parameters(), *rest]

    def update(self, batch: dict[str, Tensor], noise: UpdateNoise) -> dict[str, Tensor]:
        cfg, net, task = self.cfg, self.net, batch["task"]
        ours, horizon = net.ours[0], cfg.horizon
        discount, action = ours.discounts[task], batch["action"] * ours.action_mask[task]
        obs, next_obs = (batch[k] * ours.obs_mask[task] for k in ("obs", "next_obs"))
        terminated = batch["terminated"].float()
        with torch.no_grad():
            next_z = net.encoder(net.join(task, next_obs))
            next_action, _, _ = net.pi(next_z, task, noise.next_action)
            both = net.value(net.q(next_z, next_action, task, target=True))[noise.target_heads]
            target = batch["reward"] + discount * (1 - terminated) * torch.minimum(both[0], both[1])
        z = net.encoder(net.join(task, obs[0]))
        states, gates, overlaps = [z], {"dynamics": [], "rewards": []}, {"dynamics": [], "rewards": []}
        zero = torch.zeros(())
        terms = dict.fromkeys(("consistency", "reward", "value", "termination", "moe"), zero)
        for t in range(horizon):
            weight, x = cfg.rho**t / horizon, net.join(task, z, action[t])
            terms["reward"] = terms["reward"] + weight * soft_ce(net.rewards(x), batch["reward"][t]).mean()
            rows = slice(t * x.shape[0], (t + 1) * x.shape[0])
            q = net.q(z, action[t], task, dropped=None if noise.dropped is None else noise.dropped[:, rows])
            for head in q:
                terms["value"] = terms["value"] + weight * soft_ce(head, target[t]).mean() / len(q)
            z = net.dynamics(x)
            terms["consistency"] = terms["consistency"] + weight * F.mse_loss(z, next_z[t])
            states.append(z)
            if net.termination is not None:
                logit = net.termination(net.join(task, z)).squeeze(-1)
                p = F.binary_cross_entropy_with_logits(logit, terminated[t])
                terms["termination"] = terms["termination"] + p / horizon
            for name, seen in gates.items():
                if isinstance(block := getattr(net, name), PlainMoE):
                    seen.append(block.p)
                    overlaps[name].append(block.overlap)
        for name, rows in gates.items():
            if rows:
                p = torch.cat(rows)
                experts = p.shape[1]
                spread = entropy(p) / math.log(cfg.moe_top_k or experts)
                balance = experts * p.mean(0).square().sum() - 1
                terms["moe"] = terms["moe"] + cfg.moe_lb_alpha * balance
                terms["moe"] = terms["moe"] + cfg.moe_entropy_coef * (spread - cfg.moe_entropy_target) ** 2
                if cfg.orthogonal == "penalty":
                    terms["moe"] = terms["moe"] + 0.01 * torch.stack(overlaps[name]).mean()
        loss = 20 * terms["consistency"] + 0.1 * terms["reward"] + 0.1 * terms["value"] + terms["termination"]
        self.optimizer.zero_grad()
        (loss + terms["moe"]).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.learnt, cfg.grad_clip_norm)
        self.optimizer.step()
        metrics = {f"{name}_loss": value for name, value in terms.items()} | {"grad_norm": norm}
        pi_loss = self.policy_step(torch.stack(states).detach(), task, noise)
        with torch.no_grad():
            for slow, fast in zip(net.targets.parameters(), net.critics.parameters()):
                slow.copy_((1 - cfg.tau) * slow + cfg.tau * fast)
            for name, rows in gates.items():
                if rows:
                    p, block = torch.cat(rows), getattr(net, name)
                    spread = float(entropy(p) / math.log(cfg.moe_top_k or p.shape[1]))
                    block.tau += cfg.moe_beta * (cfg.moe_entropy_target - spread)
                    block.tau = min(max(block.tau, cfg.moe_tau_min), cfg.moe_tau_max)
        return metrics | {"pi_loss": pi_loss, "scale": torch.tensor(self.scale)}

    def policy_step(self, states: Tensor, task: Tensor, noise: UpdateNoise) -> Tensor:
        cfg, net = self.cfg, self.net
        loss = torch.zeros(())
        for t, z in enumerate(states):
            action, _, entropy = net.pi(z, task, noise.action[t])
            q = net.value(net.q(z, action, task))[noise.heads].mean(0)
            if t == 0:
                low, high = torch.quantile(q.detach(), torch.tensor([0.05, 0.95])).tolist()
                self.scale += cfg.tau * (max(1.0, high - low) - self.scale)
            loss = loss - cfg.rho**t * (q / self.scale + cfg.entropy_coef * entropy).mean() / len(states)
        self.pi_optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.policy.parameters(), cfg.grad_clip_norm)
        self.pi_optimizer.step()
        return loss


@torch.no_grad()
def plain_plan(net: PlainModel, obs: Tensor, task: Tensor, mean: Tensor, noise: PlanNoise, env: int) -> Tensor:
    """One env's plan: obs (O,), task (), mean (H, A) to start from, noise of which only the env's part is used."""
    ours, s = net.ours[0], net.agent[0].settings
    mask, gamma = ours.action_mask[task], float(ours.discounts[task])
    z0 = net.encoder(net.join(task, (obs * ours.obs_mask[task]).unsqueeze(0)))  # (1, D)
    prior, z = [], z0.expand(s.num_pi_trajs, -1)
    for t in range(s.horizon):
        action, _, _ = net.pi(z, task, noise.prior[t, env])
        prior.append(action)
        z = net.dynamics(net.join(task, z, action))
    std = torch.full_like(mean, s.max_std) * mask
    for i in range(s.iterations):
        drawn = (mean.unsqueeze(1) + std.unsqueeze(1) * noise.samples[i, :, env]).clamp(-1, 1) * mask
        actions = torch.cat((torch.stack(prior), drawn), 1)  # (H, N, A)
        z, total, factor, ended = z0.expand(s.num_samples, -1), 0.0, 1.0, torch.zeros(s.num_samples)
        for t in range(s.horizon):
            x = net.join(task, z, actions[t])
            total = total + factor * (1 - ended) * net.value(net.rewards(x))
            z, factor = net.dynamics(x), factor * gamma
            if net.termination is not None and ours.can_end[task]:
                now = net.termination(net.join(task, z)).squeeze(-1).sigmoid() > 0.5
                ended = torch.maximum(ended, now.float())
        action, _, _ = net.pi(z, task, noise.last[i, env])
        terminal = net.value(net.q(z, action, task))[noise.heads[i]].mean(0)
        value = torch.nan_to_num(total + factor * (1 - ended) * terminal, 0.0)
        best = value.argsort(descending=True)[: s.num_elites]
        elites = actions[:, best]
        weight = torch.exp(s.temperature * (value[best] - value[best].max()))
        weight = (weight / weight.sum()).view(1, -1, 1)
        mean = (weight * elites).sum(1)
        std = (weight * (elites - mean.unsqueeze(1)) ** 2).sum(1).sqrt().clamp(s.min_std, s.max_std) * mask
    return mean


def linear(layer: nn.Module) -> nn.Linear:
    return plain_linear(layer.weight, layer.bias)
