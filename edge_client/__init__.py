"""The runtime on the device."""

__version__ = "0.1.0.dev0"
