"""The monitor of consumer lag, in a process that joins no group."""
