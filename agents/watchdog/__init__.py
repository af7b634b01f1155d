"""The watchdog: an eye on every deadline, in a process without Faust, that tells people directly."""
