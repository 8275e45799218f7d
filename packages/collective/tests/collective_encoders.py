"""Small encoders and their learners."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collective.config_encoder import EncoderConfig, ModelConfig
from collective.data import Dataset
from collective.encoder import Encoder, EncoderLearner
from collective.prefixes import WindowSampler
from collective.run.train_encoder import facts_of
from collective.windows import compress

SMALL = ModelConfig(width=16, heads=4, layers=2, hidden=32)
CFG = EncoderConfig(data=(Path("made-up"),), model=SMALL, batch=12, updates=50, validated=6)
CLOSE = {"rtol": 0, "atol": 1e-5}


def learner(data: Dataset, **changes: Any) -> EncoderLearner:
    cfg = replace(CFG, **changes)
    return EncoderLearner(cfg, facts_of(data), compress(data.obs), 100)


def sampler(data: Dataset, batch: int = 12, full: float = 0.5, start: float = 0.5, seed: int = 0) -> WindowSampler:
    return WindowSampler(data, 20, batch, full, start, np.random.default_rng(seed))


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_encoder(data: Dataset, **changes: Any) -> Encoder:
    """Of a learner that has hardly begun, with positions that count."""
    made = learner(data, **changes)
    with torch.no_grad():
        made.model.position.normal_(generator=dice())
    return made.encoder()
