"""Model-based RL with a mixture-of-experts world model: the `prismatic` command."""

__version__ = "1.0.0"
