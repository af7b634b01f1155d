"""Whether consumer groups are well, and how far behind in records and in time. Pure."""
