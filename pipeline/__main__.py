"""`python -m pipeline`: recordings in, a table of HeAR embeddings out."""

import sys

from pipeline.command import main

if __name__ == "__main__":
    sys.exit(main())
