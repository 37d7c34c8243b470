"""A local HeAR endpoint: the real one's protocol, limits and errors, with a stand-in in place of the model."""
