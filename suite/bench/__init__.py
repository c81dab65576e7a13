"""Speed: points that are judged and then timed."""
