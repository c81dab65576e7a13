"""Kernels of this op, one idea per file."""
