"""The event engine: object changes, findings and time in; events with parameters, in their queues, out."""
