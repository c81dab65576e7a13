"""cross_entropy: log_softmax, a target and a mean."""
