"""The runtime on the device."""
