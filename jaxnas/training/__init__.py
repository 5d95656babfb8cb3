"""Training: the step, the optimizer, the loop, the mesh and checkpoints."""
