"""`bench cuda-check`: checks that this project works on this GPU."""
