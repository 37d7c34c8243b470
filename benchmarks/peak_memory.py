"""Peak memory of the command: an hour-long recording beside a short one, and many clips beside a tenth of them.

Of all its processes together, sampled, what they share counted once; the largest process's is printed beside it.

Run as `python -m benchmarks.peak_memory [--short] [--long FILE]`; exits with 1 if memory grows by more than is allowed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.command import CLIPS_PER_FILE, Usage, measure, write_files
from emulator.process import start_local_endpoint

ALLOWED_MB = 150
BLOCK = 65536


def main() -> int:
    """Runs the benchmark; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--short", action="store_true", help="about a minute: ten minutes of sound, and a tenth of the clips"
    )
    parser.add_argument("--long", type=Path, metavar="FILE", help="a long recording to use instead of one of noise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, start_local_endpoint() as local:
        root = Path(folder)
        write_files(root / "one", 1)
        long = options.long or write_long(root / "long.wav", minutes=10 if options.short else 80)
        clips = 1000 if options.short else 10000
        write_files(root / "few", clips // CLIPS_PER_FILE)
        write_files(root / "many", 10 * clips // CLIPS_PER_FILE)
        one, of_long, few, many = (measure(path, local) for path in (root / "one", long, root / "few", root / "many"))
    print(f"{'':<24}{'clips':>9}{'peak MB':>10}{'largest':>10}")
    for name, usage in (
        ("one 5 s file", one),
        ("one long recording", of_long),
        ("5 s files", few),
        ("5 s files", many),
    ):
        print(f"{name:<24}{usage.clips:>9}{usage.together_mb:>10.0f}{usage.peak_mb:>10.0f}")
    grown = [growth("a long recording", one, of_long), growth("ten times the clips", few, many)]
    return 0 if all(grown) else 1


def growth(name: str, small: Usage, large: Usage) -> bool:
    """Prints by how much memory grew; whether that is allowed."""
    more_mb = large.together_mb - small.together_mb
    passed = more_mb <= ALLOWED_MB
    print(
        f"{'PASS' if passed else 'FAIL'}: {name}: {more_mb:+.0f} MB ({large.together_mb / small.together_mb:.2f} times), "
        f"allowed {ALLOWED_MB} MB"
    )
    return passed


def write_long(path: Path, minutes: int) -> Path:
    """Writes 48 kHz stereo noise, block by block."""
    rng = np.random.default_rng(1)
    block = (0.1 * rng.standard_normal((BLOCK, 2))).astype(np.float32)
    with soundfile.SoundFile(path, "w", 48000, 2, "PCM_16") as file:
        for _ in range(minutes * 60 * 48000 // BLOCK):
            file.write(block)
    return path


if __name__ == "__main__":
    sys.exit(main())
