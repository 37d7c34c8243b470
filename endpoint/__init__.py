"""The HeAR endpoints' client: codec, requests in flight, retries, credentials (no Beam in it)."""
