"""Each claim of speed and memory in the README, measured beside its peer in one run."""
