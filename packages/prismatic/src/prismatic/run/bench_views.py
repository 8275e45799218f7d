"""What `prismatic bench` found, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Found = Mapping[str, Any]


def to_text(found: Found) -> str:
    """Rates, the parts of an update and of a plan, ratios."""
    lines = [about(found), ""]
    lines += table(["", "a second", "ms a call [quartiles]"], [_rate(row) for row in found["rows"]])
    for what, sides in found["parts_ms"].items():
        if sides:
            parts = list(dict.fromkeys(part for side in sides.values() for part in side))
            rows = [[name, *(_ms(side.get(part, 0.0)) for part in parts)] for name, side in sides.items()]
            lines += ["", *table([f"parts of a{'n' * (what[0] in 'aeiou')} {what}, ms", *parts], rows)]
    lines += ["", *table(["costs", "ratio [quartiles]"], [_ratio(ratio) for ratio in found["ratios"]])]
    return "\n".join(lines)


def about(found: Found) -> str:
    """What was measured, on what and how."""
    s, m = found["settings"], found["machine"]
    sizes = ", ".join(f"{name} {count:,} parameters" for name, count in found["parameters"].items())
    return "\n".join([
        f"model_size={s['model_size']}: {sizes}; {s['obs_dim']} observations, {s['action_dim']} actions",
        f"batches of {s['batch_size']}; plans of {s['num_samples']} sequences, horizon {s['horizon']}, iterations "
        f"{found['iterations']}; {s['precision']}",
        f"{m['gpu'] or m['cpu']}, torch {m['packages']['torch']}, load {m['load']}",
        f"{found['clock']}; medians of {found['turns']} turns",
    ])  # fmt: skip


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [headings, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    return ["  ".join(t.rjust(w) if i else t.ljust(w) for i, (t, w) in enumerate(zip(row, widths))) for row in cells]


def _rate(row: Found) -> list[str]:
    return [f"{row['what']}: {row['side']}", f"{row['per_s']:,.1f}", f"{_ms(row['ms'])} {_range(row, _ms)}"]


def _ratio(row: Found) -> list[str]:
    return [f"{row['what']}: {row['over']} / {row['under']}", f"{row['ratio']:.2f} {_range(row, '{:.2f}'.format)}"]


def _range(row: Found, say: Any) -> str:
    low, high = row["quartiles"]
    return f"[{say(low)}, {say(high)}]"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
