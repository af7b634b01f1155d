"""Tests of the usage worker and of what it decides."""
