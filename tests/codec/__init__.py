"""Tests of bytes ⇄ core types, the registry, the manifest and the topics."""
