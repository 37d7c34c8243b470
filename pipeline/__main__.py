"""`python -m pipeline`: recordings in, a table of HeAR embeddings out."""

from __future__ import annotations

import gc
import sys

from endpoint.errors import RunEnded
from endpoint.quiet import keep_secrets_out_of_logs
from pipeline.usage import PROGRAM


def main() -> int:
    """Runs the command; returns its exit status."""
    try:
        keep_secrets_out_of_logs()  # before gRPC is imported, which reads GRPC_TRACE then
    except RunEnded as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    gc.disable()  # going through what imports make, again and again, takes long
    try:
        from pipeline.command import main as run
    except KeyboardInterrupt:  # that takes some seconds
        print(f"{PROGRAM}: error: interrupted before anything was sent", file=sys.stderr)
        return 130
    finally:
        gc.freeze()  # it stays
        gc.enable()
    return run()


if __name__ == "__main__":
    sys.exit(main())
