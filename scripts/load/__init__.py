"""Load: many devices at once against a real coordinator, to see what it takes."""
