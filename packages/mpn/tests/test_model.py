"""Q-networks: every core steps as it reads sequences, starts the same from the same generator, refuses wrong shapes."""

import numpy as np
import pytest
import torch

from mpn.model import CORES, MPNDQN, DoubleMPNDQN, map_state, numpy_policy, reset_rows
from rlcore.errors import UsageError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tensors(state):
    return (state,) if isinstance(state, torch.Tensor) else state


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("core", CORES)
def test_stepping_equals_one_sequence_resets_included(core, layers):
    dqn = MPNDQN(3, 6, 2, core=core, num_layers=layers, eta=0.3, generator=generator()).double()
    obs = torch.randn(11, 4, 3, generator=generator(1), dtype=torch.float64)
    is_init = torch.rand(11, 4, generator=generator(2)) < 0.15
    start = dqn.init_state(4)
    if core != "mpn-frozen":
        start = map_state(lambda s: torch.randn(s.shape, generator=generator(3), dtype=s.dtype), start)
    for flags in (is_init, None):
        q, last = dqn.sequence(obs, flags, start)
        state = start
        for t in range(len(obs)):
            q_t, state = dqn(obs[t], state, None if flags is None else flags[t])
            torch.testing.assert_close(q_t, q[t], atol=1e-12, rtol=1e-12)
        for a, b in zip(tensors(state), tensors(last)):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
    assert dqn.sequence(obs[:0], is_init[:0], start)[0].shape == (0, 4, 2)


@pytest.mark.parametrize("core", CORES)
def test_a_reset_forgets_the_past_and_only_in_its_row(core):
    dqn = MPNDQN(3, 6, 2, core=core, eta=0.3, generator=generator()).double()
    obs = torch.randn(8, 2, 3, generator=generator(1), dtype=torch.float64)
    is_init = torch.zeros(8, 2, dtype=torch.bool)
    is_init[5, 0] = True
    q, _ = dqn.sequence(obs, is_init, dqn.init_state(2))
    without, _ = dqn.sequence(obs, None, dqn.init_state(2))
    fresh, _ = dqn.sequence(obs[5:], None, dqn.init_state(2))
    torch.testing.assert_close(q[5:, 0], fresh[:, 0])
    torch.testing.assert_close(q[:, 1], without[:, 1])
    if core != "mpn-frozen":
        assert not torch.allclose(q[5:, 0], without[5:, 0])


@pytest.mark.parametrize("core", CORES)
def test_gradients_reach_every_parameter_through_time(core):
    dqn = MPNDQN(3, 6, 2, core=core, eta=0.3, input_map="learned", generator=generator())
    obs = torch.randn(4, 2, 3, generator=generator(1), requires_grad=True)
    q, _ = dqn.sequence(obs, None, dqn.init_state(2))
    q[-1].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in dqn.parameters())
    assert bool(obs.grad[0].any()) == (core != "mpn-frozen")  # the first observation shapes the last Q


def test_readme_example():
    dqn = MPNDQN(obs_dim=4, hidden_dim=64, action_dim=2)
    state = dqn.init_state(batch_size=1)
    assert state.shape == (1, 64, 4)
    q, state = dqn(torch.randn(1, 4), state)
    assert q.shape == (1, 2)
    assert state.shape == (1, 64, 4)
    action, state = dqn.select_action(torch.randn(1, 4), state, epsilon=0.1)
    assert action.shape == (1,)
    assert action.dtype == torch.int64
    assert (dqn.core.eta, dqn.core.lambda_decay, dqn.core.activation) == (0.01, 0.95, "tanh")


def test_state_shapes():
    shapes = {
        ("mpn", 1): [(2, 6, 4)],
        ("mpn-frozen", 1): [(2, 6, 4)],
        ("mpn", 2): [(2, 6, 4), (2, 6, 6)],
        ("gru", 1): [(2, 6)],
        ("lstm", 1): [(2, 6)] * 2,
        ("lstm", 2): [(2, 6)] * 4,
    }
    for (core, layers), want in shapes.items():
        state = MPNDQN(3, 6, 2, core=core, num_layers=layers, input_map="one").init_state(2)
        assert [tuple(s.shape) for s in tensors(state)] == want
        assert isinstance(state, torch.Tensor) == (len(want) == 1)


@pytest.mark.parametrize(
    ("core", "count"),
    [("mpn", 4 * 8 + 8), ("mpn-frozen", 40), ("rnn", 32 + 64 + 16), ("gru", 3 * 112), ("lstm", 4 * 112)],
)
def test_parameter_count(core, count):
    assert MPNDQN(4, 8, 3, core=core).parameter_count == count + 8 * 3 + 3


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("input_map", ["random", "learned"])
def test_weights_come_from_the_generator_alone(core, input_map):
    before = torch.get_rng_state()
    a, b, other = (
        MPNDQN(3, 6, 2, core=core, num_layers=2, input_map=input_map, generator=generator(s)) for s in (0, 0, 1)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    assert any(not torch.equal(x, y) for x, y in zip(a.state_dict().values(), other.state_dict().values()))
    assert all(v.isfinite().all() and v.abs().max() < 10 for v in a.state_dict().values())  # nothing left empty
    head = a.q_head.weight
    torch.testing.assert_close(head @ head.T, 1e-4 * torch.eye(2), atol=1e-7, rtol=0)  # orthogonal, gain 0.01
    assert not a.q_head.bias.any()


def test_input_maps():
    obs = torch.randn(5, 3)
    assert torch.equal(MPNDQN(3, 6, 2).input_map(obs), obs)
    assert torch.equal(MPNDQN(3, 6, 2, input_map="one").input_map(obs), torch.cat((obs, torch.ones(5, 1)), 1))
    big = MPNDQN(20, 6, 2, input_map="random", input_dim=4000, generator=generator()).input_map
    bound = (6 / 4020) ** 0.5
    for values in (big.P, big.p):
        assert bound * 0.99 < values.abs().max() <= bound
        assert values.var().item() == pytest.approx(bound**2 / 3, rel=0.1)
    torch.testing.assert_close(big(torch.ones(1, 20))[0], big.P.sum(1) + big.p)
    with pytest.raises(UsageError, match="learned"):
        MPNDQN(3, 6, 2, input_map="fixed")


def test_the_random_map_is_not_trained_and_the_learned_one_is():
    for kind in ("random", "learned"):
        dqn = MPNDQN(3, 6, 2, input_map=kind, generator=generator())
        assert {"input_map.P", "input_map.p"} <= set(dqn.state_dict())
        assert ("input_map.P" in dict(dqn.named_parameters())) == (kind == "learned")
        before = dqn.input_map.P.clone()
        optimizer = torch.optim.Adam(dqn.parameters(), 0.1)
        dqn.sequence(torch.randn(3, 2, 3), None, dqn.init_state(2))[0].sum().backward()
        optimizer.step()
        assert torch.equal(dqn.input_map.P, before) == (kind == "random")


def test_epsilon_greedy():
    dqn = MPNDQN(3, 6, 4, generator=generator())
    obs, state = torch.randn(4000, 3, generator=generator(1)), dqn.init_state(4000)
    greedy = dqn(obs, state)[0].argmax(-1)
    assert torch.equal(dqn.select_action(obs, state, epsilon=0.0)[0], greedy)
    action, _ = dqn.select_action(obs, state, epsilon=1.0, generator=generator(2))
    assert action.bincount(minlength=4).min() > 900
    action, _ = dqn.select_action(obs, state, epsilon=0.4, generator=generator(2))
    assert (action == greedy).float().mean().item() == pytest.approx(0.6 + 0.4 / 4, abs=0.03)
    assert torch.equal(action, dqn.select_action(obs, state, 0.4, generator(2))[0])


def test_wrong_shapes_name_both_shapes_and_the_argument():
    dqn = MPNDQN(3, 6, 2)
    with pytest.raises(ValueError, match=r"\(2, 5\).*O = 3.*obs_dim=5"):
        dqn(torch.randn(2, 5), dqn.init_state(2))
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(1, 6, 3\).*batch_size=2"):
        dqn(torch.randn(2, 3), dqn.init_state(1))
    with pytest.raises(ValueError, match=r"expected \(T, B, O\)"):
        dqn.sequence(torch.randn(2, 3), None, dqn.init_state(2))
    with pytest.raises(UsageError, match="mpn-frozen"):
        MPNDQN(3, 6, 2, core="transformer")
    with pytest.raises(UsageError, match="num_layers"):
        MPNDQN(3, 6, 2, num_layers=0)


@pytest.mark.parametrize("core", CORES)
def test_target_net_follows_by_copy_or_by_steps(core):
    double = DoubleMPNDQN(3, 6, 2, core=core, input_map="random", generator=generator())
    obs = torch.randn(2, 3)

    def both():
        return [net(obs, net.init_state(2))[0] for net in (double.online, double.target)]

    torch.testing.assert_close(*both())
    assert not any(p.requires_grad for p in double.target.parameters())
    with torch.no_grad():
        for p in double.online.parameters():
            p.add_(1.0)
    assert not torch.allclose(*both())
    old, new = double.target.q_head.weight.clone(), double.online.q_head.weight
    double.soft_update(0.25)
    torch.testing.assert_close(double.target.q_head.weight, 0.75 * old + 0.25 * new)
    double.online.input_map.P.zero_()
    double.hard_update()
    torch.testing.assert_close(*both(), atol=0, rtol=0)
    other = DoubleMPNDQN(3, 6, 2, core=core, input_map="random", generator=generator(1))
    other.load_state_dict(double.state_dict())
    torch.testing.assert_close(other.online(obs, other.online.init_state(2))[0], both()[0])


def test_reset_rows_touches_only_its_rows():
    state = (torch.ones(3, 2), torch.ones(3, 2, 4))
    a, b = reset_rows(state, torch.tensor([True, False, True]))
    assert a.sum() == 2
    assert b.sum() == 8
    assert state[0].sum() == 6


@pytest.mark.parametrize("input_map", ["none", "one", "random", "learned"])
@pytest.mark.parametrize(
    ("layers", "kwargs"),
    [
        (1, {}),
        (2, {"activation": "sigmoid"}),
        (1, {"activation": "relu", "bias": False, "m_clip": 0.1}),
        (1, {"core": "mpn-frozen", "activation": "linear"}),
    ],
)
def test_numpy_policy_equals_torch_and_follows_the_optimiser(input_map, layers, kwargs):
    dqn = MPNDQN(4, 16, 3, num_layers=layers, eta=0.1, input_map=input_map, generator=generator(), **kwargs)
    policy = numpy_policy(dqn)
    optimizer = torch.optim.Adam(dqn.parameters(), 0.02)
    obs = torch.randn(20, 5, 4, generator=generator(1))
    is_init = torch.rand(20, 5, generator=generator(2)) < 0.1
    for _ in range(3):
        want, last = dqn.sequence(obs, is_init, dqn.init_state(5))
        state = policy.init_state(5)
        for t in range(20):
            q, state = policy(obs[t].numpy(), state, is_init[t].numpy())
            np.testing.assert_allclose(q, want[t].detach().numpy(), atol=1e-5)
            assert q.dtype == np.float32
        for a, b in zip((state,) if isinstance(state, np.ndarray) else state, tensors(last)):
            np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-5)
        optimizer.zero_grad()
        want.square().sum().backward()
        optimizer.step()


def test_numpy_policy_refuses_other_cores():
    with pytest.raises(UsageError, match="mpn-frozen"):
        numpy_policy(MPNDQN(3, 6, 2, core="gru"))
