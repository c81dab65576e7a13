"""The verdict on one output: special values, the interval of each entry, and the message."""
