"""What is hidden: how often, of what, and by whose dice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from collective.config_encoder import MaskConfig
from collective.masking import hide
from rlcore.errors import UsageError

FAR = 7.0  # a value that neither zero nor noise is


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def everywhere(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.full(shape, FAR), torch.ones(shape[:2], dtype=torch.bool)


def test_frequencies():
    """Oracle 13: 15 % of a million cells, of them 80 % zero, 10 % noise, 10 % as they were."""
    values, valid = everywhere(2_500, 400, 2)
    hidden, chosen = hide(values, valid, MaskConfig(), dice())
    assert float(chosen.float().mean()) == pytest.approx(0.15, abs=0.002)
    picked = hidden[chosen]
    zero, left = (picked == 0).all(1), (picked == FAR).all(1)
    noise = ~zero & ~left
    for share, expected in ((zero, 0.8), (noise, 0.1), (left, 0.1)):
        assert float(share.float().mean()) == pytest.approx(expected, abs=0.01)
    drawn = picked[noise]
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.01)
    assert (drawn[:, 0] != drawn[:, 1]).all()  # fresh for each element, not for each position
    assert (hidden[~chosen] == FAR).all()


def test_positions_are_chosen_alone():
    """One chosen position says nothing of the next."""
    values, valid = everywhere(2_000, 100, 1)
    chosen = hide(values, valid, MaskConfig(), dice()).chosen.float()
    after = chosen[:, 1:][chosen[:, :-1] == 1]
    assert float(after.mean()) == pytest.approx(0.15, abs=0.01)


def test_every_row_has_a_hidden_position_and_it_is_the_last_where_chance_gave_none():
    values, valid = everywhere(1_000, 5, 3)
    chosen = hide(values, valid, MaskConfig(share=1e-6), dice()).chosen
    assert (chosen.sum(1) == 1).all()
    assert chosen[:, -1].all()
    assert hide(values, valid, MaskConfig(), dice()).chosen.any(1).all()


def test_only_what_is_there_is_hidden():
    values, _ = everywhere(200, 6, 3)
    lengths = torch.arange(200) % 7  # 0 to 6
    valid = torch.arange(6) >= 6 - lengths[:, None]
    hidden, chosen = hide(values, valid, MaskConfig(share=0.5), dice())
    assert not (chosen & ~valid).any()
    assert (hidden[~valid] == FAR).all()
    assert chosen.any(1)[lengths > 1].all()


def test_the_only_position_of_a_row_is_left_to_chance():
    """Else a window of one state would hardly ever be seen as acting shows it."""
    values, _ = everywhere(20_000, 6, 3)
    valid = (torch.arange(6) == 5).expand(20_000, -1)
    chosen = hide(values, valid, MaskConfig(), dice()).chosen
    assert float(chosen[:, -1].float().mean()) == pytest.approx(0.15, abs=0.01)


def test_no_position_at_all():
    hidden, chosen = hide(torch.zeros(3, 0, 4), torch.zeros(3, 0, dtype=torch.bool), MaskConfig(), dice())
    assert hidden.shape == (3, 0, 4)
    assert chosen.shape == (3, 0)


def test_two_views_differ_and_the_generator_alone_decides():
    values, valid = everywhere(50, 20, 2)
    rng = dice()
    one, other = hide(values, valid, MaskConfig(), rng), hide(values, valid, MaskConfig(), rng)
    assert not torch.equal(one.chosen, other.chosen)
    torch.rand(5)
    again = hide(values, valid, MaskConfig(), dice())
    assert torch.equal(again.values, one.values)
    assert torch.equal(again.chosen, one.chosen)


def test_every_option_is_used():
    """D7: constants that nobody passes on."""
    values, valid = everywhere(200, 20, 2)
    assert hide(values, valid, MaskConfig(share=1.0), dice()).chosen.all()
    assert (hide(values, valid, MaskConfig(share=1.0, zero=1.0, noise=0.0), dice()).values == 0).all()
    assert (hide(values, valid, MaskConfig(share=1.0, zero=0.0, noise=0.0), dice()).values == FAR).all()
    assert (hide(values, valid, MaskConfig(share=1.0, zero=0.0, noise=1.0), dice()).values < 1).all()


@pytest.mark.parametrize("options", [{"share": 0.0}, {"share": 1.1}, {"zero": 0.8, "noise": 0.3}, {"noise": -0.1}])
def test_shares_that_make_no_sense(options: dict[str, float]):
    with pytest.raises(UsageError, match="mask"):
        MaskConfig(**options)


def test_values_themselves_stay():
    values, valid = everywhere(4, 4, 2)
    hide(values, valid, MaskConfig(share=1.0), dice())
    assert (values == FAR).all()
