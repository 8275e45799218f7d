"""Reads run directories, draws figures."""
