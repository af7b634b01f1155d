"""Tests of pinned bytes."""
