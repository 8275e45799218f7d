"""How codes are judged: exams on held-out trajectories, scores by hand, clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from collective_encoders import CFG, dice, learner, sampler, some_encoder
from collective_windows import made_up

from collective.analysis import clusters, telling
from collective.data import Dataset
from collective.encoder import Encoder
from collective.prefixes import exam, ranges
from collective.run.train_encoder import Judge, last_state


@pytest.fixture(scope="module")
def data() -> Dataset:
    return made_up()


class TestJudgement:
    def test_the_last_state_is_told_by_its_own_token(self, data: Dataset):
        """D8: the token before CLS. It is hidden from the network, and what it says there is what is scored."""
        made = learner(data)
        with torch.no_grad():
            made.model.position.normal_(generator=dice())
        batch = sampler(data).sample()
        found = last_state(made, batch)
        windows = made.model.normalized(batch.windows)
        hidden = windows.states.clone()
        hidden[:, -1] = 0
        out = made.model.outputs(windows._replace(states=hidden))
        asked = batch.windows.lengths > 1
        assert out.shape[1] == 59
        for token, same in ((57, True), (58, False)):
            told = made.model.heads[0](out[:, token])
            score = float((told - windows.states[:, -1]).square().mean(-1)[asked].mean())
            assert (score == pytest.approx(float(found["last_state"]), rel=1e-5)) is same
        moved = batch.windows.states.clone()
        moved[:, -1] += 5.0  # the truth moves, what is told of it does not: it was hidden
        other = last_state(made, batch._replace(windows=batch.windows._replace(states=moved)))
        assert float(other["last_state"]) > float(found["last_state"])
        before = (windows.states[:, -1] - windows.states[:, -2]).square().mean(-1)[asked].mean()
        assert float(found["last_before"]) == pytest.approx(float(before), rel=1e-5)

    def test_only_held_out_trajectories_are_examined(self, data: Dataset, monkeypatch: pytest.MonkeyPatch):
        """D6: nothing is examined that was learnt from, and centroids come from what was."""
        known, held_out = data.of_split("train"), data.of_split("validation")
        used: dict[str, set[int]] = {"known": set(), "held_out": set()}
        codes_of = telling.codes_of

        def spy(encoder: Encoder, part: Dataset, rows: Any, lengths: Any) -> Any:
            name = "known" if part is known else "held_out"
            used[name] |= {part.obs[row].tobytes() for row in rows}
            return codes_of(encoder, part, rows, lengths)

        monkeypatch.setattr(telling, "codes_of", spy)
        judge = Judge(CFG, known, held_out, torch.device("cpu"))
        judge.tell(some_encoder(data))
        train_rows, asked_rows = ({row.tobytes() for row in part.obs} for part in (known, held_out))
        assert used["known"] <= train_rows
        assert used["held_out"] <= asked_rows
        assert used["known"]
        assert used["held_out"]
        assert not train_rows & asked_rows
        assert all(batch.windows.states.shape == (12, 20, 21) for batch in judge.batches)

    def test_judging_twice_gives_the_same_and_draws_nothing(self, data: Dataset):
        made = learner(data)
        judge = Judge(CFG, data.of_split("train"), data.of_split("validation"), torch.device("cpu"))
        state = made.noise.get_state(), torch.get_rng_state()
        first, again = judge.losses(made), judge.losses(made)
        assert first == again
        assert telling.scores(judge.tell(made.encoder())) == telling.scores(judge.tell(made.encoder()))
        assert torch.equal(state[0], made.noise.get_state())
        assert torch.equal(state[1], torch.get_rng_state())

    def test_an_exam_asks_what_acting_meets(self, data: Dataset):
        questions = exam(data, 20, 8, np.random.default_rng(0))
        assert ranges(20) == [(1, 1), (2, 5), (6, 19), (20, 20)]
        since = questions.rows - data.offsets[data.trajectory_of_rows[questions.rows]]
        np.testing.assert_array_equal(questions.lengths, np.minimum(since + 1, 20))
        assert len(set(questions.rows.tolist())) == len(questions.rows)
        counts = np.zeros((3, 4), int)
        np.add.at(counts, (questions.task, questions.span), 1)
        assert (counts == 8).all()
        lengths = np.minimum(np.concatenate([np.arange(n) for n in data.lengths]) + 1, 20)
        shares = [np.mean((lengths >= low) & (lengths <= high)) for low, high in ranges(20)]
        np.testing.assert_allclose(questions.weights, shares)

    def test_scores_by_hand(self, data: Dataset):
        questions = exam(data, 20, 5, np.random.default_rng(0))
        guess = questions.task.copy()
        guess[questions.span == 0] = 0  # of single states one task in three is right
        told = telling.Told(questions, np.eye(6, dtype=np.float32)[questions.task], guess, 20)
        found = telling.scores(told)
        assert found["accuracy_1"] == pytest.approx(1 / 3)
        assert found["accuracy_2_5"] == found["accuracy_6_19"] == found["accuracy_20"] == 1.0
        assert found["accuracy"] == pytest.approx(1 - questions.weights[0] * 2 / 3)
        assert found["silhouette"] == pytest.approx(1.0)
        table = telling.confusion(told, questions.span == 0, 3)
        np.testing.assert_allclose(table, [[1, 0, 0]] * 3)


class TestClusters:
    def points(self, seed: int = 0, spread: float = 0.4) -> tuple[Any, Any]:
        rng = np.random.default_rng(seed)
        labels = rng.integers(4, size=80)
        return rng.normal(size=(4, 3))[labels] * 2 + spread * rng.normal(size=(80, 3)), labels

    def test_silhouette_by_its_definition(self):
        for seed in range(3):
            points, labels = self.points(seed, 1.0)
            labels[0] = 9 if seed else 0  # alone
            scores = []
            for i, point in enumerate(points):
                far = {
                    k: np.linalg.norm(points[(labels == k) & (np.arange(80) != i)] - point, axis=1) for k in set(labels)
                }
                b = min(float(far[k].mean()) for k in far if k != labels[i])
                a = float(far[labels[i]].mean()) if len(far[labels[i]]) else b
                scores.append((b - a) / max(a, b))
            assert clusters.silhouette(points, labels) == pytest.approx(np.mean(scores), abs=1e-9)

    def test_silhouette_of_one_group(self):
        assert clusters.silhouette(np.random.default_rng(0).normal(size=(5, 2)), np.zeros(5, int)) == 0.0

    def test_assignment_is_the_best_there_is(self):
        optimize = pytest.importorskip("scipy.optimize")
        rng = np.random.default_rng(0)
        for n in (1, 2, 3, 7, 20):
            for cost in (rng.normal(size=(n, n)), rng.integers(0, 3, (n, n)).astype(float)):
                found = clusters.assignment(cost)
                assert sorted(found) == list(range(n))
                rows, columns = optimize.linear_sum_assignment(cost)
                assert cost[np.arange(n), found].sum() == pytest.approx(cost[rows, columns].sum())

    def test_names_of_clusters_do_not_matter(self):
        labels = np.array([0, 0, 1, 1, 2, 2])
        assert clusters.matched_accuracy(np.array([2, 2, 0, 0, 1, 1]), labels) == 1.0
        assert clusters.matched_accuracy(np.array([2, 2, 0, 1, 1, 1]), labels) == pytest.approx(5 / 6)
        assert clusters.matched_accuracy(np.zeros(6, int), labels) == pytest.approx(1 / 3)

    def test_kmeans_finds_what_lies_apart(self):
        points, labels = self.points(spread=0.05)
        found = clusters.kmeans(points, 4, np.random.default_rng(0))
        assert clusters.matched_accuracy(found, labels) == 1.0
        same = clusters.kmeans(np.ones((6, 2)), 3, np.random.default_rng(0))
        assert same.shape == (6,)

    def test_nearest_centroid(self):
        points = np.array([[0.0, 1.0], [0.0, 2.0], [3.0, 0.0]])
        centres = clusters.centroids(points, np.array([0, 0, 2]), 3)
        np.testing.assert_allclose(centres, [[0, 1.5], [np.nan, np.nan], [3, 0]])
        assert clusters.nearest(np.array([[0.0, 1.4], [2.0, 0.0]]), centres).tolist() == [0, 2]
        np.testing.assert_allclose(np.linalg.norm(clusters.directions(points), axis=1), 1.0)
