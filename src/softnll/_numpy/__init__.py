"""The public functions on NumPy arrays."""
