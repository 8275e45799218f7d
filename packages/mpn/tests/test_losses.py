"""The loss by hand: which row is bootstrapped from, what ends an episode, what a schedule gives."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpn.losses import (
    burn_in_length,
    double_q_target,
    linear_epsilon,
    multiplicative_epsilon,
    n_step_return,
    recurrent_double_dqn_loss,
)
from rlcore.errors import UsageError

F64 = torch.float64


def column(*values, dtype=F64):
    return torch.tensor(values, dtype=dtype).unsqueeze(1)


def flags(*values):
    return column(*values, dtype=torch.bool)


def test_double_q_target_by_hand():
    q, qt = torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([[5.0, 3.0], [5.0, 3.0]])
    y = double_q_target(torch.tensor([1.0, 1.0]), torch.tensor([0.9, 0.0]), q, qt)
    torch.testing.assert_close(y, torch.tensor([3.7, 1.0]))  # 1 + 0.9 * 3, not 0.9 * 5; the terminal row keeps r
    assert not y.requires_grad


# A chain s0 -> s1 -> s2 -> s3 with known tables; row t holds Q(s_t, .) of a window of L = 3 steps.
Q = torch.tensor([[0.0, 1.0], [2.0, 1.0], [0.5, 3.0], [4.0, 0.0]], dtype=F64).unsqueeze(1)
QT = torch.tensor([[9.0, 9.0], [10.0, 20.0], [30.0, 40.0], [50.0, 60.0]], dtype=F64).unsqueeze(1)
ACTION, REWARD = column(1, 0, 1, dtype=torch.int64), column(0.0, 1.0, 2.0)
NONE = flags(False, False, False)


def test_targets_of_a_chain_by_hand():
    """gamma .5. argmax of rows 1, 2, 3 is 0, 1, 0, so y = 0 + 5, 1 + 20, 2 + 25; chosen Q(s_t, a_t) = 1, 2, 3."""
    loss, info = recurrent_double_dqn_loss(Q, QT, ACTION, REWARD, NONE, NONE, 0.5)
    torch.testing.assert_close(info["td_error"], column(1 - 5.0, 2 - 21.0, 3 - 27.0))
    torch.testing.assert_close(loss, torch.tensor((3.5 + 18.5 + 23.5) / 3, dtype=F64))  # huber(e) = |e| - 1/2
    assert info["q_mean"] == 2.0
    shuffled, _ = recurrent_double_dqn_loss(Q[[0, 1, 3, 2]], QT[[0, 1, 3, 2]], ACTION, REWARD, NONE, NONE, 0.5)
    assert shuffled != loss


def test_a_terminated_row_ignores_the_next_row():
    ends = flags(False, True, False)
    _, info = recurrent_double_dqn_loss(Q, QT, ACTION, REWARD, ends, NONE, 0.5)
    torch.testing.assert_close(info["td_error"], column(-4.0, 2 - 1.0, -24.0))
    q, qt = Q.clone(), QT.clone()
    q[2], qt[2] = q[2] + torch.tensor([7.0, -7.0]), 1e6
    _, other = recurrent_double_dqn_loss(q, qt, ACTION, REWARD, ends, NONE, 0.5)
    assert other["td_error"][1] == info["td_error"][1]


def test_a_truncated_row_has_no_weight():
    q = Q.clone().requires_grad_()
    loss, info = recurrent_double_dqn_loss(q, QT, ACTION, REWARD, NONE, flags(False, True, False), 0.5)
    torch.testing.assert_close(loss.detach(), torch.tensor((3.5 + 23.5) / 2, dtype=F64))
    assert info["mask"].flatten().tolist() == [1, 0, 1]
    (gradient,) = torch.autograd.grad(loss, q)
    assert not gradient[1].any()
    torch.testing.assert_close(gradient[0, 0], torch.tensor([0.0, -0.5], dtype=F64))  # huber' = -1, two rows
    assert not gradient[3].any()  # no gradient through the target


def test_every_row_truncated_is_a_loss_of_zero():
    loss, _ = recurrent_double_dqn_loss(Q, QT, ACTION, REWARD, NONE, flags(True, True, True), 0.5)
    assert loss == 0.0


def test_huber_is_quadratic_inside_delta():
    loss, _ = recurrent_double_dqn_loss(Q, Q, ACTION, column(0.5, -0.2, 0.9), flags(1, 1, 1), NONE, 0.5)
    errors = torch.tensor([1 - 0.5, 2 + 0.2, 3 - 0.9], dtype=F64)
    want = (0.5 * errors[0] ** 2 + errors[1] - 0.5 + errors[2] - 0.5) / 3
    torch.testing.assert_close(loss, want)


def test_two_steps_by_hand():
    """n = 2, gamma .5: y_0 = 0 + .5 * 1 + .25 * qt[2][1] = 10.5; y_1 = 1 + .5 * 2 + .25 * qt[3][0] = 14.5."""
    _, info = recurrent_double_dqn_loss(Q, QT, ACTION, REWARD, NONE, NONE, 0.5, n_step=2)
    torch.testing.assert_close(info["td_error"], column(1 - 10.5, 2 - 14.5))
    _, info = recurrent_double_dqn_loss(Q, QT, ACTION, REWARD, flags(False, True, False), NONE, 0.5, n_step=2)
    torch.testing.assert_close(info["td_error"], column(1 - 0.5, 2 - 1.0))  # both sums stop at the end of step 1
    _, info = recurrent_double_dqn_loss(Q, QT, ACTION, REWARD, NONE, flags(False, False, True), 0.5, n_step=2)
    assert info["mask"].flatten().tolist() == [1, 0]
    ends = flags(False, True, False), flags(False, False, True)  # the truncation is another episode's
    assert recurrent_double_dqn_loss(Q, QT, ACTION, REWARD, *ends, 0.5, n_step=2)[1]["mask"].all()


@given(st.data(), st.integers(1, 4), st.integers(4, 9))
def test_n_step_return_equals_the_definition(data, n, length):
    rewards = data.draw(st.lists(st.integers(-3, 3), min_size=length, max_size=length))
    ends = data.draw(st.lists(st.sampled_from(["", "", "", "term", "trunc"]), min_size=length, max_size=length))
    total, discount, mask = n_step_return(
        column(*rewards), flags(*[e == "term" for e in ends]), flags(*[e == "trunc" for e in ends]), 0.5, n
    )
    assert len(total) == length + 1 - n
    for t in range(len(total)):
        want, bootstrap, weight = 0.0, 0.5**n, 1.0
        for k in range(n):
            want += 0.5**k * rewards[t + k]
            if ends[t + k] == "term":
                bootstrap = 0.0
                break
            if ends[t + k] == "trunc":
                weight = 0.0
                break
        assert mask[t] == weight
        if weight:
            assert (total[t], discount[t]) == (want, bootstrap)


def test_windows_shorter_than_n_are_refused():
    with pytest.raises(UsageError, match="n_step 4"):
        n_step_return(REWARD, NONE, NONE, 0.9, 4)


def test_epsilon_schedules():
    assert linear_epsilon(0, 100, 1.0, 0.05) == 1.0
    assert linear_epsilon(50, 100, 1.0, 0.05) == pytest.approx(0.525)
    assert linear_epsilon(100, 100, 1.0, 0.05) == linear_epsilon(10**9, 100, 1.0, 0.05) == pytest.approx(0.05)
    assert linear_epsilon(0, 0, 1.0, 0.05) == pytest.approx(0.05)
    assert multiplicative_epsilon(0, 0.995, 1.0, 0.01) == 1.0
    assert multiplicative_epsilon(10, 0.995, 1.0, 0.01) == pytest.approx(0.995**10)
    assert multiplicative_epsilon(5000, 0.995, 1.0, 0.01) == 0.01


@pytest.mark.parametrize(
    ("lam", "tenth", "hundredth"), [(0.8, 11, 21), (0.9, 22, 44), (0.95, 45, 90), (0.99, 230, 459), (0.0, 1, 1)]
)
def test_burn_in_length(lam, tenth, hundredth):
    assert burn_in_length(lam) == tenth
    assert burn_in_length(lam, 0.01) == hundredth


def test_burn_in_without_decay_is_refused():
    with pytest.raises(UsageError, match="whole episodes"):
        burn_in_length(1.0)
