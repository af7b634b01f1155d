"""One night of a billing system, end to end, on a Kafka of its own: ``curfew demo``."""
