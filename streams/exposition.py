"""Prometheus' text format, for the metrics of :mod:`streams.metrics`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from streams.metrics import ALL, Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts of seconds by upper bound, since the process started."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Exposition:
    """Collects samples, then :meth:`text` is what Prometheus reads. Raises ValueError for labels that do not fit."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def add(self, metric: Metric, value: float | None, *labels: object) -> None:
        """One sample; None is no sample. ``labels`` are values in the order of the metric's."""
        if value is not None:
            self._of(metric).append(f"{metric.name}{_labels(metric.labels, labels)} {_number(value)}")

    def add_histogram(self, metric: Metric, histogram: Histogram, *labels: object) -> None:
        """One histogram, cumulated."""
        lines, so_far = self._of(metric), 0
        for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
            so_far += count
            lines.append(f"{metric.name}_bucket{_labels((*metric.labels, 'le'), (*labels, bound))} {so_far}")
        lines.append(f"{metric.name}_sum{_labels(metric.labels, labels)} {_number(histogram.total)}")
        lines.append(f"{metric.name}_count{_labels(metric.labels, labels)} {so_far}")

    def text(self) -> str:
        """Everything so far, with help and type of each name."""
        parts: list[str] = []
        for name, lines in self._lines.items():
            metric = ALL[name]
            parts += (f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}", *lines)
        return "\n".join(parts) + "\n" if parts else ""

    def _of(self, metric: Metric) -> list[str]:
        return self._lines.setdefault(metric.name, [])


def _labels(names: Sequence[str], values: Sequence[object]) -> str:
    if len(names) != len(values):
        raise ValueError(f"{len(values)} label values for {', '.join(names)}")
    return "{" + ",".join(map(_label, names, values)) + "}" if names else ""


def _label(name: str, value: object) -> str:
    text = str(value)
    if "\\" in text or '"' in text or "\n" in text:
        text = text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{name}="{text}"'


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, bool | int) else repr(float(value))
