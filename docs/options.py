"""Write the tables of training options in docs/ from the configurations' own comments: python docs/options.py"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import re
import tokenize
import typing
from pathlib import Path
from typing import Any

import collective.config_distill
import collective.config_pipeline
import gasp.config_rl
import gasp.config_skills
import mpn.config
import prismatic.config
import taskinfer.config

PAGES = {  # a table each, in the order of their places on the page
    Path(__file__).with_name("mpn.md"): (mpn.config.TrainConfig,),
    Path(__file__).with_name("prismatic.md"): (prismatic.config.TrainConfig,),
    Path(__file__).with_name("taskinfer.md"): (taskinfer.config.ToyConfig,),
    Path(__file__).with_name("collective.md"): (
        collective.config_pipeline.PipelineConfig,
        collective.config_distill.DistillConfig,
    ),
    Path(__file__).with_name("gasp.md"): (gasp.config_skills.SkillsConfig, gasp.config_rl.RLConfig),
}
BEGIN, END = "<!-- options:begin -->", "<!-- options:end -->"


def comments(cls: type) -> dict[str, str]:
    """Field -> the comment on its lines, base classes included."""
    found: dict[str, str] = {}
    for base in cls.__bases__[::-1]:  # as dataclasses collect their fields
        found |= {} if base is object else comments(base)
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
    return "\n".join(["| option | default | what it is |", "|---|---|---|", *rows(cls, None, "--")])


def rows(cls: Any, default: Any, prefix: str) -> list[str]:
    """A row an option of `cls`, whose defaults are those of the instance `default` where there is one."""
    remarks, found, hints = comments(cls), [], typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        if "Suppress" in map(repr, getattr(hints[field.name], "__metadata__", ())):
            continue  # --help does not show it either
        made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value, name = made if default is None else getattr(default, field.name), field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            found += rows(type(value), value, f"{prefix}{name}.")
        else:
            text = remarks[field.name].replace("|", "\\|")
            shown = "required" if value is dataclasses.MISSING else f"`{value}`"
            found.append(f"| `{prefix}{name}` | {shown} | {text} |")
    return found


def page(path: Path) -> str:
    """A page as it should be."""
    tables = iter(PAGES[path])
    return re.sub(
        f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{table(next(tables))}\n{END}", path.read_text(), flags=re.DOTALL
    )


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(page(path))
