"""Subscribers: units and their attempts, dead letters, replays, and what became of them."""
