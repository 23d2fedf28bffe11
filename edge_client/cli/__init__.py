"""Thin commands over the core of the device."""
