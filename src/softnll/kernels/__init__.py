"""Kernels: pure functions of a Problem. They never check, and only the front doors call them."""
