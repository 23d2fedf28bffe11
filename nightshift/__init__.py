"""What both sides share: the protocol, model packages, and what programs need from the machine."""
