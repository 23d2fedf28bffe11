"""Thin commands over the core of the coordinator."""
