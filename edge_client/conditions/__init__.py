"""Whether the device may work now, and what says so."""
