"""How often a worker looks for garbage that only cycles keep: seldom, since its records make none.

A chunk of 500 records makes a hundred thousand objects, all of which are gone with it by their counts of references. At
Python's defaults the collector would walk through them every 700 objects: a tenth of the worker's processor time.
"""

from __future__ import annotations

import gc

#: New objects before the youngest are looked at; every twentieth time their elders, every four hundredth time all.
THRESHOLDS = (50_000, 20, 20)


def collect_seldom() -> None:
    """For this process, from now on; what is there already (modules, mostly) is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
