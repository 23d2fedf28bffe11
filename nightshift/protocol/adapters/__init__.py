"""LoRA adapters as vectors and as files."""

from nightshift.protocol.adapters.errors import AdapterError, FormatError, LayoutError
from nightshift.protocol.adapters.initialise import initialise
from nightshift.protocol.adapters.layout import PROJECTIONS, AdapterLayout, Side, Target, Tensors
from nightshift.protocol.adapters.method import Method

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
    "initialise",
]
