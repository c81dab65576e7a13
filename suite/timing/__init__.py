"""Times of calls on the CPU and on CUDA with what they say, memory, and what this machine can do at best."""
