"""`bench cuda-check`: whether this project works on this GPU."""
