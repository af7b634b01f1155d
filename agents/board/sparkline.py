"""A line of the last figures as SVG, drawn here: the page needs no script for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

WIDTH: Final = 120
HEIGHT: Final = 24
_EDGE: Final = 2


def sparkline(values: Sequence[float], name: str) -> Markup:
    """``values``, the newest on the right; empty without two of them. ``name`` says what it is to who cannot see it."""
    if len(values) < 2:
        return Markup("")
    top = max(values)
    across = (WIDTH - 2 * _EDGE) / (len(values) - 1)
    room = HEIGHT - 2 * _EDGE
    points = [
        (_EDGE + at * across, HEIGHT - _EDGE - (value / top * room if top > 0 else 0))
        for at, value in enumerate(values)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    label = f"{name}: from {values[0]:,.0f} to {values[-1]:,.0f}, highest {top:,.0f}"
    return Markup(
        '<svg class="spark" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" aria-label="{label}">'
        '<polyline points="{line}" /><circle cx="{x}" cy="{y}" r="2" /></svg>'
    ).format(w=WIDTH, h=HEIGHT, label=label, line=line, x=f"{x:.1f}", y=f"{y:.1f}")
