"""Handing a recording over to the field's tools: neo and elephant, NWB, SONATA, networkx.

Time: tick t is the interval from t * dt to (t + 1) * dt seconds. Whatever belongs to it, a spike or the sample taken
after it, is stamped with its start, t * dt, and a recording of the ticks a, ..., b spans a * dt to (b + 1) * dt. So a
count of spikes over the span divided by its length is the rate, and spikes and samples of one tick have one time.

A recording of several copies of a network (the points of a sweep, the elements of a batch) becomes one neo segment per
copy; a format with room for one copy takes ``point=`` and ``batch=``.
"""

from .graph import to_networkx
from .neo import to_neo
from .nwb import to_nwb
from .sonata import to_sonata

__all__ = ["to_neo", "to_networkx", "to_nwb", "to_sonata"]
