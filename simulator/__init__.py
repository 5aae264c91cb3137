"""engrax: what can a network learn if every synapse only knows what a synapse can know?

Networks are networkx graphs, learning rules are functions of one synapse, recordings are HDF5 files.
"""

from . import meta, networks, probes, rules
from .alignment import alignment
from .brian import brian2_script, to_brian2
from .errors import ExportError, RecordingError, SimulationError
from .locality import Locality, locality
from .network import Model, Network, State
from .networks import Fields, NetworkError
from .nir import to_nir
from .probes import Probe
from .protocol import Phase
from .recordings.compare import diff
from .recordings.export import export
from .recordings.handover import to_neo, to_networkx, to_nwb, to_sonata
from .recordings.reading import Recording, open
from .recordings.recorder import Recorder
from .recordings.resume import resume, verify
from .rules import Rule, RuleError
from .simulator import Simulator, sweep

__all__ = [
    "ExportError",
    "Fields",
    "Locality",
    "Model",
    "Network",
    "NetworkError",
    "Phase",
    "Probe",
    "Recorder",
    "Recording",
    "RecordingError",
    "Rule",
    "RuleError",
    "SimulationError",
    "Simulator",
    "State",
    "alignment",
    "brian2_script",
    "diff",
    "export",
    "locality",
    "meta",
    "networks",
    "open",
    "probes",
    "resume",
    "rules",
    "sweep",
    "to_brian2",
    "to_neo",
    "to_networkx",
    "to_nir",
    "to_nwb",
    "to_sonata",
    "verify",
]
