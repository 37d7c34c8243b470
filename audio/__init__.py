"""Recordings to clips: list, fetch, decode, resample, window (no Beam in it)."""
