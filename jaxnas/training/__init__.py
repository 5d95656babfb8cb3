"""Training a supernet: step, optimizer, loop, checkpoints, interruption."""
