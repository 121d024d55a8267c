"""The preprint's claims: the rules that judge them, and their verdicts."""
