"""The errors of a run. `NetworkError` (a graph that is no network) and `RuleError` live with networks and rules."""


class SimulationError(RuntimeError):
    """A run cannot start or go on; the message says where and what to do. What was recorded stays."""


class RecordingError(RuntimeError):
    """A recording cannot be made, written or read; the message names the file and the remedy."""


class ExportError(ValueError):
    """A network cannot be expressed in another simulator's or format's terms; the message names what cannot."""
