"""Signed releases of adapters."""
