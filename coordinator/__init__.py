"""The service that adds up what it cannot read."""
