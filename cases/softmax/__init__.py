"""softmax, log_softmax and logsumexp: one law, three ops."""
