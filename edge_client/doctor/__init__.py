"""Looking for what could keep this device from working, and saying how to mend each."""
