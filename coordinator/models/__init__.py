"""The publisher of model packages."""
