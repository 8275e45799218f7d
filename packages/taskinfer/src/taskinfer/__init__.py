"""Meta-RL whose task inference is learnt on a toy and reused on MuJoCo bodies: the `taskinfer` command."""

__version__ = "1.0.0"
