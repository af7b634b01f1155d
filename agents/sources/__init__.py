"""Data sources: rows of other systems, on their way to the parameters of events."""
