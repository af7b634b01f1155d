"""Configuration on compacted topics: files that people write, checks before anything is saved, audited changes."""
