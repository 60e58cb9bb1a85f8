"""Compiled kernels for the CPU, on explicit vectors."""
