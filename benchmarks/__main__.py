"""Runs all benchmarks, one after the other: `python -m benchmarks [--short]`."""

import subprocess
import sys

BENCHMARKS = (
    "encode_and_send",
    "job_lines",
    "in_flight",
    "decoding",
    "whole_command",
    "fetch_ahead",
    "rows_written",
    "scale",
    "peak_memory",
    "batch",
    "quota",
)

failed = []
for name in BENCHMARKS:
    print(f"\n== {name}", flush=True)
    if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=False).returncode:
        failed.append(name)
print(f"\nmissed: {', '.join(failed)}" if failed else "\nall within their bounds")
sys.exit(bool(failed))
