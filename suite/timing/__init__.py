"""Clocks. One wall-clock reading for now; benchmarks with statistics, CUDA events and memory come with `bench`."""
