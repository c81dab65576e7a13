"""Kernels of softmax, log_softmax and logsumexp: one algorithm a file, which serves two ops or three."""
