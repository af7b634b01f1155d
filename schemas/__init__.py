"""Schemas as data: the topic manifest (``topics.toml``), Avro schemas by full name and version, and golden examples.

``avro/<full.name>/v<N>.avsc`` is self-contained. ``examples/<full.name>/<N>/<case>.json`` is what a person writes,
``<case>.avro`` beside it the pinned Avro body (without the five bytes of the wire format). A schema named in
``released.lock`` never changes again: a change is a new version.
"""
