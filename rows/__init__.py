"""What a run keeps: identities, the rows of its tables, and how they are written down (no Beam in it)."""
