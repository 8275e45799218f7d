"""Benchmarks: `python -m benchmarks` trains the methods beside their peers through their command lines, and reports."""
