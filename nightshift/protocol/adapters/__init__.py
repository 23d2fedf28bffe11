"""LoRA adapters as vectors and as files."""

from nightshift.protocol.adapters.errors import AdapterError, FormatError, LayoutError
from nightshift.protocol.adapters.initialise import initialise
from nightshift.protocol.adapters.layout import PROJECTIONS, AdapterLayout, Method, Side, Target, Tensors
from nightshift.protocol.adapters.slots import TrainedSlots

__all__ = [
    "PROJECTIONS",
    "AdapterError",
    "AdapterLayout",
    "FormatError",
    "LayoutError",
    "Method",
    "Side",
    "Target",
    "Tensors",
    "TrainedSlots",
    "initialise",
]
