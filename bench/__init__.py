"""How one run is made and read."""
