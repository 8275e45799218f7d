"""Many Meta-World experts distilled into one policy that teaches students: the `collective` command."""

__version__ = "1.0.0"
