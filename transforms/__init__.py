"""Beam's side of each stage, one module a stage: list_recordings, make_packets, embed_packets, choose_rows, write_tables, sum_up."""
