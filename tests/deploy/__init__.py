"""What is in docker/: a wrong name there is found by nobody until the night in which it matters."""
