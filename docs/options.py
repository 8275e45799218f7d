"""Write the tables of training options in docs/ from the configurations' own comments: python docs/options.py"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import re
import tokenize
from pathlib import Path
from typing import Any

import mpn.config
import prismatic.config

PAGES = {
    Path(__file__).with_name("mpn.md"): mpn.config.TrainConfig,
    Path(__file__).with_name("prismatic.md"): prismatic.config.TrainConfig,
}
BEGIN, END = "<!-- options:begin -->", "<!-- options:end -->"


def comments(cls: type) -> dict[str, str]:
    """Field -> the comment on its lines, base classes included."""
    found = {} if cls.__base__ in (None, object) else comments(cls.__base__)
    source = inspect.getsource(cls)
    remarks = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            found[node.target.id] = " ".join(remarks[line] for line in lines if line in remarks)
    return found


def table(cls: Any) -> str:
    """A Markdown table: option, default, meaning."""
    remarks = comments(cls)
    rows = ["| option | default | what it is |", "|---|---|---|"]
    for field in dataclasses.fields(cls):
        text = remarks[field.name].replace("|", "\\|")
        rows.append(f"| `--{field.name.replace('_', '-')}` | `{field.default}` | {text} |")
    return "\n".join(rows)


def page(path: Path) -> str:
    """A page as it should be."""
    made = f"{BEGIN}\n{table(PAGES[path])}\n{END}"
    return re.sub(f"{BEGIN}.*{END}", lambda _: made, path.read_text(), flags=re.DOTALL)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(page(path))
