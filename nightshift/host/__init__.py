"""What both programs need from the machine: files, configuration, logging, failpoints, TLS."""
