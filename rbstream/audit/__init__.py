"""The receipt in the morning: what came in against what went out."""
