"""The worlds that tasks are set in: the toy, and bodies."""
