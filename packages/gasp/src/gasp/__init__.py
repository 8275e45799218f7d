"""Skills from demonstrations under a Dirichlet-process prior, then hierarchical RL: the `gasp` command."""

__version__ = "1.0.0"
