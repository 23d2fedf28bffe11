"""Backups: rows and objects taken while the service runs, keys under a passphrase, and all of it brought back."""
