"""Whether claims hold, by hand: of another method, of its learning curve, of students without their teachers."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import collect
from benchmarks.blocks import students
from benchmarks.kinds import Claim


def test_a_claim_of_more_than_another_method():
    records = [
        {"task": "maze", "method": method, "seed": seed, "return_mean": score, "state": "done"}
        for method, scores in (("gasp", (0.9, 0.5)), ("gasp-prior", (0.3, 0.3)))
        for seed, score in enumerate(scores)
    ]
    claim = Claim("maze", "gasp", more=0.25, than="gasp-prior")
    judged = collect.judge(claim, records)
    assert (judged["scores"], judged["good"], judged["holds"]) == ([0.6, 0.2], 1, False)
    assert "more than gasp, skill prior alone by at least 0.25 in 2 of 2 seeds" in judged["claim"]
    assert collect.judge(claim, records[:3])["holds"] is None  # one of the two has not run
    for record in records:  # by the curves it is the other way round
        record["curve"] = [[0, 0.0, 1.0], [500, 1.0 - record["return_mean"], 2.0]]
    short = {"task": "maze", "method": "spirl", "seed": 0, "return_mean": 1.0, "curve": [], "state": "done"}
    judged = collect.judge(replace(claim, at=500), [*records, short])
    assert judged["scores"] == [-0.6, -0.2]
    assert "at step 500" in judged["claim"]


def test_a_claim_of_learning_above_another_method():
    """Areas by hand: 0.5, 0.75 and 0.5 against 0.25 each; and an interval that has 0 in it shows nothing."""
    curves = {"gasp": ((0.0, 1.0), (0.5, 1.0), (0.0, 1.0)), "gasp-none": ((0.0, 0.5), (0.0, 0.5), (0.0, 0.5))}
    records = [
        {"task": "maze", "method": method, "seed": seed, "state": "done", "curve": [[0, first, 1], [500, last, 2]]}
        for method, ends in curves.items()
        for seed, (first, last) in enumerate(ends)
    ]
    claim = Claim("maze", "gasp", above="gasp-none")
    judged = collect.judge(claim, records)
    assert (judged["scores"], judged["good"], judged["holds"]) == ([0.25, 0.5, 0.25], 3, True)
    assert "above that of gasp (no prior), by 0.33 [0.25, 0.50]" in judged["claim"]
    assert collect.judge(claim, records[:5])["holds"] is None  # one of them has not run
    assert collect.judge(claim, [r for r in records if r["seed"] < 2])["holds"] is None  # two cannot tell
    records[0]["curve"] = [[0, 0.0, 1], [500, 0.4, 2]]
    judged = collect.judge(claim, records)
    assert (judged["scores"], judged["good"], judged["holds"]) == ([-0.05, 0.5, 0.25], 2, False)
    records[0]["curve"] = [[0, 1.0, 1]]  # one evaluation has no area
    assert collect.judge(claim, records)["holds"] is None


def test_what_students_keep_by_hand():
    """He goes at step 2: success 0.5 and 1 until then, 0.9 and 0.7 at the end."""
    whole = {"steps": [0, 1, 2, 3, 4], "gone": 2}
    runs = {"taught-s0": [0, 0.5, 1, 0, 0.9], "taught-s1": [0, 0.5, 1, 0.7, 0.7], "plain-s0": [0, 0, 0, 0.2, 0.2]}
    curves = [
        {"run": f"{task}-{name}", "success": success, **whole}
        for task in students.TASKS
        for name, success in runs.items()
    ]
    found = students.lasting(curves)
    assert found.keys() == set(students.TASKS)
    row = found[students.TASKS[0]]
    assert (row["taught"], row["at the end"], row["plain"]) == (0.75, 0.575, 0.2)
    assert (row["change"], row["interval"]) == (-0.175, [-0.3, -0.05])
