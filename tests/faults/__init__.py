"""Processes die here on purpose; what is left has to be complete."""
