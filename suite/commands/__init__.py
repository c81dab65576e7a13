"""The commands of `softmax-suite`, a module each."""
