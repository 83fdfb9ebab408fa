"""HTTP in front of the shop."""
