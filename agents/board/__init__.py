"""The board: one web page that says how tonight goes, and from which a person can act.

::

    sources (threads, read Kafka) ── panels (pure views) ──> memory ──> app (pages and JSON, answered from memory)

A page view never waits for Kafka; an action does, after it has been written to the audit trail.
"""
