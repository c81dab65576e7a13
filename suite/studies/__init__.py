"""What is measured apart from any case: profiles, thresholds, gradients, published claims, tolerances."""
