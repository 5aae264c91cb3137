"""engrax: what can a network learn if every synapse only knows what a synapse can know?

Networks are networkx graphs, learning rules are functions of one synapse, recordings are HDF5 files.
"""

from . import networks, rules
from .errors import RecordingError, SimulationError
from .locality import Locality, locality
from .network import Model, Network, State
from .networks import Fields, NetworkError
from .protocol import Phase
from .recording import Recorder
from .rules import Rule, RuleError
from .simulator import Simulator, sweep

__all__ = [
    "Fields",
    "Locality",
    "Model",
    "Network",
    "NetworkError",
    "Phase",
    "Recorder",
    "RecordingError",
    "Rule",
    "RuleError",
    "SimulationError",
    "Simulator",
    "State",
    "locality",
    "networks",
    "rules",
    "sweep",
]
