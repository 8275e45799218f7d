"""What a bench says of its jobs: tables, claims, curves and the page."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks import __main__ as main
from benchmarks import collect, page, report, suite
from benchmarks.kinds import Claim
from hypothesis import given
from hypothesis import strategies as st
from stand_in import go


@pytest.fixture
def made(make_job, results: Path) -> report.Report:
    """Three seeds of two methods on one task, whose scores are known."""
    jobs = [make_job(score, seed, "mpn") for seed, score in enumerate(("480", "500", "460"))]
    jobs += [make_job(score, seed, "gru") for seed, score in enumerate(("100", "200", "480"))]
    assert go(jobs, results) == 0
    return collect.collect(jobs, results, "quick", "python -m benchmarks")


def test_the_table_by_hand(made: report.Report):
    mpn, gru = made["tasks"][0]["rows"]
    assert (mpn["method"], mpn["solved"], mpn["runs"]) == ("mpn", 2, 3)
    assert mpn["mean"] == pytest.approx(480)
    assert mpn["iqm"] == pytest.approx(480)  # of three, nothing is cut off
    assert mpn["ci"] == pytest.approx([460, 500])
    assert mpn["steps_to_bar"] == 40  # two of three seeds: the median exists
    assert gru["steps_to_bar"] is None  # one of three: it does not
    assert mpn["env_steps_per_s"] == pytest.approx(100)  # 40 steps in 0.4 s by the run's own clock
    assert mpn["updates_per_s"] == pytest.approx(50)
    assert mpn["curve"][0][:2] == [10, 120]
    assert report.cells(mpn)[:6] == ("mpn", "480 [460, 500]", "2/3", "40", "0", "▃▅▇█")
    assert report.summary(made)[1] == [("mpn", "480, 2 of 3"), ("gru", "260, 1 of 3")]


def test_methods_with_tasks_of_their_own_have_a_row_for_each():
    """Three tasks of one method each would be a table of which two thirds are empty."""
    row = {"done": 1, "iqm": 2.0, "solved": 1, "runs": 3}
    tasks = [{"title": f"T{i}", "bar": 5, "rows": [{"title": title, **row}]} for i, title in enumerate(("mpn", "gru"))]
    third = {"title": "T2", "bar": 5, "rows": [{"title": "rnn", **row}, {"title": "lstm", **row, "done": 0}]}
    headers, rows = report.summary({"tasks": [*tasks, third]})
    assert headers == ("method", "task (return that solves it)", "return, seeds that solved it")
    assert rows == [(title, f"T{i} (5)", "2.00, 1 of 3") for i, title in enumerate(("mpn", "gru", "rnn"))]
    headers, rows = report.summary({"tasks": tasks})
    assert rows == [("mpn", "2.00, 1 of 3", "–"), ("gru", "–", "2.00, 1 of 3")]


def test_a_long_headline_counts_what_the_table_names():
    assert report.few("abcd", "methods") == "a, b, c and d"
    assert report.few("abcde", "methods") == "5 methods"


def test_the_headline_says_whose_scores_they_are(made: report.Report):
    assert "each; scores on 2 fresh episodes a run: greedy returns of the best checkpoint." in report.headline(made)
    assert report.scored(["spirl", "gasp", "gasp"]) == "returns of drawn skills by the last agent"
    mixed = report.scored(["gasp", "mpn", "gru", "spirl"])
    assert mixed == (
        "returns of drawn skills by the last agent (gasp and gasp (SPiRL)); "
        "greedy returns of the best checkpoint (mpn and gru)"
    )


def test_an_agent_of_several_tasks_has_a_row_on_each(make_job, results: Path, capsys: pytest.CaptureFixture[str]):
    jobs = [make_job("200", seed, "prismatic-mt4", "mt4") for seed in (0, 1)]
    assert go([*jobs, make_job("nan", 2, "prismatic-mt4", "mt4")], results) == 1
    assert "scored 200, 201, 202, 203" in capsys.readouterr().err
    made = collect.collect([*jobs, make_job("nan", 2, "prismatic-mt4", "mt4")], results, "mt4", "command")
    tasks = {task["task"]: task["rows"] for task in made["tasks"]}
    assert list(tasks) == [f"mt4/{part}" for part in suite.TASKS["mt4"].parts]
    assert [rows[0]["mean"] for rows in tasks.values()] == [200, 201, 202, 203]
    assert [rows[0]["solved"] for rows in tasks.values()] == [0, 2, 2, 2]  # bars of 600, 200, 150, 175
    assert tasks["mt4/cup-catch"][0]["curve"][-1][:2] == [40, 203]
    assert [claim["holds"] for claim in made["claims"]] == [None] * 8  # a seed failed, dense was not run
    assert report.failures(made) == ["mt4 prismatic-mt4 seed 2: loss is not finite: lower --lr"]
    assert "mt4 prismatic-mt4:" in report.to_markdown(made)


def test_curves_end_where_the_first_seed_ends():
    curves = [[[10, 0.0, 1.0], [20, 2.0, 3.0]], [[10, 2.0, 3.0], [20, 4.0, 5.0], [30, 9.0, 9.0]]]
    assert [[p[0], p[1], p[4]] for p in collect.band(curves)] == [[10, 1, 2], [20, 3, 4]]


def test_claims_hold_or_do_not(made: report.Report):
    holds = lambda **claim: collect.judge(Claim("cartpole", "mpn", **claim), made["jobs"])["holds"]  # noqa: E731
    assert holds(at_least=460) is True
    assert holds(at_least=475) is False
    assert holds(at_least=475, of=2) is True
    assert holds(at_most=1000) is True
    assert holds(at_most=490) is False
    assert collect.judge(Claim("tmaze", "mpn", at_least=1), made["jobs"])["holds"] is None
    assert holds(below=490) is False
    assert holds(below=500) is True


def test_a_share_of_the_way_between_two_others_by_hand(make_job, results: Path):
    ends = {"mpn-frozen": ("100", "100"), "rnn": ("500", "100"), "mpn": ("400", "100")}
    jobs = [make_job(score, seed, method) for method, both in ends.items() for seed, score in enumerate(both)]
    assert go(jobs, results) == 0
    records = collect.collect(jobs, results, "quick", "")["jobs"]
    claim = Claim("cartpole", "mpn", recovers=0.7, between=("mpn-frozen", "rnn"))
    judged = collect.judge(claim, records)
    assert (judged["scores"], judged["good"], judged["holds"]) == ([0.75, 0.0], 1, False)  # on seed 1 all are alike
    assert collect.judge(replace(claim, of=1), records)["holds"] is True
    assert "0.7 of the way from mpn-frozen to rnn" in judged["claim"]
    missing = [record for record in records if (record["method"], record["seed"]) != ("rnn", 1)]
    assert collect.judge(claim, missing)["holds"] is None


def test_parts_may_have_their_curves_in_the_evaluations(make_job, results: Path):
    job = replace(make_job("1", 0, "taskinfer-low", "cheetah"))
    rows = [
        {"kind": "eval", "step": 10, "goal_reached": 0.5, "velocity_reached": 0.25, "chain_reached": 0.0, "cpu_s": 1}
    ]
    folder = results / "runs" / job.name
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curves = {r["task"]: r["curve"] for r in collect.job_records(job, results)}
    assert curves == {
        "cheetah/goal": [[10, 0.5, 1]],
        "cheetah/velocity": [[10, 0.25, 1]],
        "cheetah/chain": [[10, 0, 1]],
    }


class Tags(HTMLParser):
    """Opened tags with their attributes, and whether all are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_sound_file(made: report.Report):
    text = page.to_html(made)
    tags = Tags(text)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags.seen}
    assert not any({"src", "href"} & set(attributes) for _, attributes in tags.seen)
    assert "http" not in text
    assert "url(" not in text
    assert sum(tag == "polyline" for tag, _ in tags.seen) == 4  # over env steps and over CPU seconds
    assert "prefers-color-scheme: dark" in text


def test_all_faces_say_the_same(made: report.Report):
    markdown, html = report.to_markdown(made), page.to_html(made)
    assert json.loads(report.to_json(made)) == json.loads(json.dumps(made))
    for row in made["tasks"][0]["rows"]:
        assert all(text in markdown for text in report.cells(row))
        assert all(text in html for text in page.without_curve(report.cells(row)))
    assert os.uname().nodename not in re.sub(r"[\w/.-]*/[\w/.-]*", "", report.to_json(made))


def test_a_bench_from_the_command_line(make_job, results: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(main, "RESULTS", results.parent)
    monkeypatch.setattr(main, "make_jobs", lambda tier, runs, only="", seeds=None: [make_job()])
    assert main.main(["--name", "results", "--workers", "1", "--record"]) == 0
    assert {p.name for p in results.glob("report.*")} == {"report.html", "report.md", "report.json"}
    assert json.loads((results.parent / "quick.json").read_text())["jobs"][0]["curve"][-1] == [40, 480, 0.2]
    assert "480" in capsys.readouterr().out
    old = results / "runs" / make_job().name / "old"
    old.touch()
    assert main.main(["--name", "results"]) == 0
    assert old.exists()
    assert main.main(["--name", "results", "--fresh"]) == 0
    assert not old.exists()
    monkeypatch.setattr(main, "make_jobs", lambda *_, **__: [])
    assert main.main(["--only", "nonsense"]) == 2


def test_a_record_keeps_the_runs_that_were_made_elsewhere(
    make_job, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """One seed on this machine, another on that one: the record has both, unless the command has changed since."""
    jobs = [make_job("480", seed, "mpn") for seed in (0, 1)]
    monkeypatch.setattr(main, "RESULTS", results.parent)
    monkeypatch.setattr(main, "make_jobs", lambda tier, runs, only="", seeds=None: jobs[: 1 if only else 2])
    assert main.main(["--name", "results", "--only", "first", "--record"]) == 0
    record = results.parent / "quick.json"
    first = json.loads(record.read_text())
    assert [job["state"] for job in first["jobs"]] == ["done", "not run"]
    shutil.rmtree(results)
    jobs.reverse()
    assert main.main(["--name", "results", "--only", "second", "--record"]) == 0
    other, kept = json.loads(record.read_text())["jobs"]
    assert kept == {"date": first["date"], "machine": first["machine"], **first["jobs"][0]}
    assert (other["seed"], other["state"], "date" in other) == (1, "done", False)
    shutil.rmtree(results)
    jobs[1] = make_job("500", 0, "mpn")
    assert main.main(["--name", "results", "--only", "second", "--record"]) == 0
    assert [job["state"] for job in json.loads(record.read_text())["jobs"]] == ["done", "not run"]
    failed = {**first["jobs"][0], "state": "failed"}
    assert collect.with_earlier([failed], first) == [failed]  # which an earlier success does not hide


@given(st.lists(st.floats(page.TOP, page.HEIGHT - page.BOTTOM), max_size=8))
def test_labels_never_overlap(heights: list[float]):
    placed = page.spread(heights, gap=17)
    assert all(b - a >= 17 - 1e-9 for a, b in pairwise(sorted(placed)))
    bottom = page.HEIGHT - page.BOTTOM
    assert all(min(*heights, bottom - 17 * len(heights)) - 1e-9 <= a <= bottom for a in placed)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    assert sorted(range(len(placed)), key=lambda i: placed[i]) == order or len(set(heights)) < len(heights)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_few_and_inside(low: float, width: float):
    ticks = page.ticks(low, low + width)
    assert 2 <= len(ticks) <= 8
    slack = 1e-6 * max(1.0, abs(low), width)
    assert all(low - slack <= tick <= low + width + slack for tick in ticks)


def test_short_numbers_and_sparklines():
    assert [report.short(v) for v in (486.3, 12.34, 0.968, -0.021, -0.0)] == ["486", "12.3", "0.97", "-0.02", "0.00"]
    assert report.sparkline([-1, 0, 1, 2], 0, 1) == "▁▁██"
    assert report.sparkline([], 0, 1) == ""
    assert len(report.sparkline(list(map(math.sqrt, range(100))), 0, 10)) <= 12


def test_micro_benchmarks_are_in_the_report(make_job, results: Path):
    row = {"name": "a part", "unit": "CPU time a call", "ours": "x", "peer": "y", "ours_us": 12.5, "peer_us": 50_000.0,
           "ratio": 4.0, "quartiles": [3.5, 4.5], "ratios": [4.0], "bar": 3, "reached": True}  # fmt: skip
    machine = {"cpu": "a CPU", "cores": 2, "load": 0.1}
    record = {
        "title": "Parts",
        "date": "today",
        "protocol": "in turns",
        "machine": machine,
        "versions": {},
        "rows": [row],
    }
    (results.parent / "micro_part.json").write_text(json.dumps(record))
    made = collect.collect([make_job()], results, "quick", "")
    for text in (report.to_markdown(made), page.to_html(made)):
        assert all(
            part in text for part in ("Parts", "12.5 µs", "50.0 ms", "4.00 [3.50, 4.50]", "reached", "a CPU, today")
        )
