"""The HTML page: one file, no links, no scripts. Curves are inline SVG coloured by CSS variables, so that dark mode is
only other values; a picture from matplotlib would have one background.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from html import escape
from typing import Any

from benchmarks import report as reports
from benchmarks.suite import METHODS

WIDTH, HEIGHT = 960, 330
LEFT, RIGHT, TOP, BOTTOM = 52, 190, 14, 40  # margins of the plot inside the picture
COLOURS = (  # light and dark, in the order of METHODS; those of one task are far apart
    ("#2563eb", "#6ea8fe"), ("#0891b2", "#4dd0e1"), ("#7c3aed", "#b794f6"), ("#64748b", "#9aa7b8"),
    ("#a16207", "#facc15"), ("#15803d", "#5fd38a"), ("#be185d", "#f472b6"), ("#c2410c", "#fb923c"),
    ("#1d4ed8", "#93c5fd"), ("#047857", "#34d399"), ("#b45309", "#fbbf24"), ("#b91c1c", "#fca5a5"),
)  # fmt: skip
VERDICTS = {"holds": "good", "reached": "good", "does not hold": "bad", "not reached": "bad"}
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2430; --soft: #5b6675; --line: #dfe4ea; --zebra: #f6f8fa;
  --good: #15803d; --bad: #b91c1c; LIGHT }
@media (prefers-color-scheme: dark) { :root { --paper: #12161c; --ink: #e4e9f0; --soft: #97a3b3; --line: #2b333e;
  --zebra: #181d25; --good: #5fd38a; --bad: #ff8a80; DARK } }
body { margin: 0 auto; max-width: 1080px; padding: 28px 20px 60px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem; }
p { margin: .3rem 0 .8rem; }
.soft { color: var(--soft); }
.good { color: var(--good); }
.bad { color: var(--bad); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .84rem; margin: .4rem 0 1rem; }
th, td { padding: .36rem .5rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
tbody tr:nth-child(even) { background: var(--zebra); }
.wrap td:first-child { white-space: normal; }
.left th, .left td { text-align: left; white-space: normal; vertical-align: top; }
.left td:first-child { min-width: 7em; }
i.key { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em;
  background: var(--c); }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 13px; fill: var(--soft); }
svg .grid { stroke: var(--line); }
svg .bar { stroke: var(--ink); stroke-dasharray: 5 4; opacity: .55; }
svg .mean { stroke: var(--c); fill: none; stroke-width: 2.4; stroke-linejoin: round; }
svg .band { fill: var(--c); opacity: .14; }
svg .dot { fill: var(--c); }
svg .name { fill: var(--c); font-weight: 600; }
pre { background: var(--zebra); padding: .6rem .8rem; overflow-x: auto; font-size: .8rem; border-radius: 6px; }
summary { cursor: pointer; font-weight: 600; margin-top: 1.6rem; }
"""


def to_html(report: reports.Report) -> str:
    """The whole page."""
    light, dark = (" ".join(f"--c{i}: {pair[k]};" for i, pair in enumerate(COLOURS)) for k in (0, 1))
    style = STYLE.replace("LIGHT", light).replace("DARK", dark)
    title = f"Quintet benchmarks: {report['tier']} tier"
    keys = {how.title: key for key, how in METHODS.items()}
    headers, rows = reports.summary(report)
    body = [f"<h1>{escape(title)}</h1>", f"<p>{escape(reports.headline(report))}</p>"]
    body += [table(headers, rows, [keys[row[0]] for row in rows])]
    for task in report["tasks"]:
        body += [f"<h2>{escape(task['title'])}</h2>", f'<p class="soft">{escape(task["about"])}</p>']
        body += [curves(task, axis) for axis in AXES]
        rows, methods = [reports.cells(row) for row in task["rows"]], [row["method"] for row in task["rows"]]
        body += [table(without_curve(reports.HEADERS), map(without_curve, rows), methods)]
    if report["claims"]:
        judged = [reports.claim_cells(claim) for claim in report["claims"]]
        body += ["<h2>Claims</h2>", table(reports.CLAIM_HEADERS, judged, kind="left")]
    for micro in report["micro"]:
        body += [f"<h2>{escape(micro['title'])}</h2>", f'<p class="soft">{escape(reports.micro_note(micro))}</p>']
        body += [table(*reports.micro_table(micro), kind="wrap")]
    if failed := reports.failures(report):
        body += ["<h2>Failed</h2>", "<ul>", *(f'<li class="bad">{escape(line)}</li>' for line in failed), "</ul>"]
    body += ["<h2>How it was made</h2>", table((), reports.facts(report), kind="left")]
    body += ["<details><summary>The commands behind each row (first seed)</summary>"]
    for name, commands in reports.one_of_each(report):
        body += [f"<p>{escape(name)}</p><pre>{escape(chr(10).join(commands.values()))}</pre>"]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{style}</style>"
    content = "\n".join([*body, "</details>"])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{content}\n</body></html>\n'


def without_curve(row: tuple[str, ...]) -> tuple[str, ...]:
    """A row without its curve in text: here there is a picture."""
    i = reports.HEADERS.index("curve")
    return row[:i] + row[i + 1 :]


def colour(method: str) -> str:
    """The CSS that gives an element its method's colour."""
    return f"--c: var(--c{list(METHODS).index(method) % len(COLOURS)})"


def table(headers: Iterable[str], rows: Iterable[Iterable[str]], methods: Iterable[str] = (), kind: str = "") -> str:
    """A table; with `methods`, each row starts with a dot in its method's colour. Verdicts are coloured."""
    head = "".join(f"<th>{escape(header)}</th>" for header in headers)
    lines = []
    for row, method in itertools.zip_longest(rows, methods):
        key = f'<i class="key" style="{colour(method)}"></i>' if method else ""
        cells = [f'<td class="{VERDICTS.get(text, "")}">{escape(text)}</td>' for text in row]
        cells[0] = cells[0].replace(">", f">{key}", 1)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    thead = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="wide {kind}"><table>{thead}<tbody>{"".join(lines)}</tbody></table></div>'


# --- curves -----------------------------------------------------------------------------------------------------------
AXES = {"env steps": 0, "CPU seconds": 4}  # what is on a plot's x axis, and where a point has it


def curves(task: dict[str, Any], axis: str) -> str:
    """Mean return over seeds against `axis`, with its 95 % band, the bar dashed, each curve named at its end.

    A method that was given the CPU time of others is not drawn against env steps: it would squeeze all the rest.
    """
    i = AXES[axis]
    rows = [row for row in task["rows"] if row.get("curve") and not (i == 0 and METHODS[row["method"]].cpu_of)]
    points = [point for row in rows for point in row["curve"]]
    if not points:
        return '<p class="soft">No curve yet.</p>'
    low, high = min(0.0, *(p[2] for p in points)), max(task["bar"], *(p[3] for p in points))
    low, high = low - 0.04 * (high - low) * (low < 0), high + 0.06 * (high - low)
    last = max(p[i] for p in points)

    def x(step: float) -> float:
        return float(LEFT + (WIDTH - LEFT - RIGHT) * step / last)

    def y(value: float) -> float:
        return float(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low))

    def across(kind: str, value: float) -> str:
        return f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'

    def text(content: str, left: float, top: float, anchor: str) -> str:
        return f'<text x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}">{content}</text>'

    parts = []
    for tick in ticks(low, high):
        parts += [across("grid", tick), text(f"{tick:g}", LEFT - 8, y(tick) + 4, "end")]
    for tick in ticks(0, last):
        label = f"{tick / 1000:g}k" if tick and i == 0 else f"{tick:g}"
        parts.append(text(label, x(tick), HEIGHT - BOTTOM + 20, "middle"))
    parts.append(text(axis, WIDTH - RIGHT, HEIGHT - 4, "end"))
    parts += [across("bar", task["bar"]), text(f"solved: {task['bar']:g}", LEFT + 6, y(task["bar"]) - 5, "start")]
    heights = spread([y(row["curve"][-1][1]) for row in rows], gap=17)
    parts += [one_curve(row, i, x, y, height) for row, height in zip(rows, heights)]
    label = escape(f"Learning curves on {task['title']} over {axis}")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def one_curve(row: dict[str, Any], i: int, x: Any, y: Any, height: float) -> str:
    """Band, line, a dot with a tooltip at each evaluation, and the name at `height`; x is a point's number `i`."""
    curve, short = row["curve"], reports.short
    mean = " ".join(f"{x(p[i]):.1f},{y(p[1]):.1f}" for p in curve)
    upper = [f"{x(p[i]):.1f},{y(p[3]):.1f}" for p in curve]
    lower = [f"{x(p[i]):.1f},{y(p[2]):.1f}" for p in reversed(curve)]
    dots = ""
    for p in curve:
        value, low, high = p[1:4]
        where = f"{p[0]:,} steps, {p[4]:,.0f} CPU s"
        tip = escape(f"{row['title']} at {where}: {short(value)} [{short(low)}, {short(high)}]")
        dots += f'<circle class="dot" cx="{x(p[i]):.1f}" cy="{y(value):.1f}" r="2.6"><title>{tip}</title></circle>'
    name = f'<text class="name" x="{x(curve[-1][i]) + 10:.1f}" y="{height + 4:.1f}">{escape(row["title"])}</text>'
    band = f'<polygon class="band" points="{" ".join(upper + lower)}"/><polyline class="mean" points="{mean}"/>'
    return f'<g style="{colour(row["method"])}">{band}{dots}{name}</g>'


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers in [low, high]."""
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def spread(heights: list[float], gap: float) -> list[float]:
    """The heights, moved apart so that no two labels are nearer than `gap`, and none is below the plot."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = list(heights)
    for above, below in itertools.pairwise(order):
        placed[below] = max(placed[below], placed[above] + gap)
    bottom = float(HEIGHT - BOTTOM)
    for i in reversed(order):
        placed[i] = min(placed[i], bottom)
        bottom = placed[i] - gap
    return placed
