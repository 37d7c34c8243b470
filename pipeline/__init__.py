"""How a run is described, planned, built, launched, watched and summed up."""
