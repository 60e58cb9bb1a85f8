"""Kernels: pure functions of a Problem, which is valid, so that they do not check. Backends call them."""
