"""Stands in for pandas in the commands that tests start: it is there for tests alone, and Beam imports it wherever it is."""

raise ImportError("users of the pipeline need not have pandas")
