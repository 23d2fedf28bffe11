"""From uploads to an opened sum to a candidate adapter."""
