"""Runs on a SLURM cluster, through submitit."""
