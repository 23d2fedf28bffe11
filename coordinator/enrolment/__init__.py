"""Tokens, the certificate authority, revocation."""
