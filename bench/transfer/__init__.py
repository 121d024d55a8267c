"""Records on their way between machines: packed on one, merged on the other."""
