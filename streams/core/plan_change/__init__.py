"""The plan change machine: pure decisions, from the order to the effective date."""
