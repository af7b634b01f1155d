"""The language of filters; the CEL library is imported here and nowhere else."""

from streams.filters.cel import CelLanguage

__all__ = ["CelLanguage"]
