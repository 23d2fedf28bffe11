"""What can be wrong with a coordinator's machine, and what mends it; looks, and changes nothing."""
