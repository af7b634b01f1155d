"""The checks of `curfew doctor`."""
