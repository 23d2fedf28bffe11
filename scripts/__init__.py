"""Scripts of the project; the parts in Python are packages here."""
