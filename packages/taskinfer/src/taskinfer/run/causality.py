"""`taskinfer eval causality`: does the belief cause the behaviour."""

from __future__ import annotations

import json
from typing import Any

from rlcore.files import explained, write_json
from rlcore.seeding import derive
from taskinfer.analysis.causality import causality
from taskinfer.config_transfer import EvalCausalityConfig
from taskinfer.run.saved import held_out_tasks, open_toy


def evaluate_causality(cfg: EvalCausalityConfig) -> int:
    """Measure, print, write analysis/causality.json."""
    saved = open_toy(cfg.run, cfg.checkpoint)
    found = causality(saved.agent, held_out_tasks(saved), derive(cfg.seed_base, "causality"), cfg.pairs)
    report = {
        "checkpoint": saved.checkpoint.name, "step": saved.step, "seed": saved.cfg.seed, "seed_base": cfg.seed_base,
        **found,
    }  # fmt: skip
    path = saved.folder / "analysis" / "causality.json"
    print(json.dumps(report) if cfg.json else "\n".join(lines(report)), flush=True)
    with explained(saved.folder):
        path.parent.mkdir(exist_ok=True)
        write_json(path, report)
    if not cfg.json:
        print(f"written to {path}")
    return 0


def lines(report: dict[str, Any]) -> list[str]:
    """The findings, a line each."""
    by_kind = ", ".join(f"{k.removeprefix('swapped_')} {v:.0%}" for k, v in report.items() if k.startswith("swapped_"))
    return [
        f"contexts swapped: behaviour swaps in {report['swapped']:.0%} of {report['pairs']} pairs ({by_kind}); "
        f"{report['apart']:.0%} go their own ways by their own contexts",
        f"belief zeroed: return {report['zeroed_return']:.1f} in place of {report['return']:.1f}, worse by "
        f"{report['zeroed_worse_by']:.1f}",
        f"actions replaced by noise: {report['noise_changes']} numbers of the beliefs change",
        f"streamed step by step, and in one pass: beliefs differ by at most {report['stream_gap']:.1e}",
    ]
