"""Wrong usage: what the user asked for cannot be done."""

PROGRAM = "python -m pipeline"


class UsageError(Exception):
    """Wrong usage; the message says which option, what it was, and what is expected."""
