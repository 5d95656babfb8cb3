"""A first training step in PyTorch, in a process that does nothing else."""

from jaxnas import spaces
from jaxnas.bench import inputs, torch_step
from jaxnas.supernets import torch_nets


def first_step(space: str, batch_size: int, seed: int) -> None:
  """Runs a step in this process, eagerly."""
  torch_step.use_pinned_cores()
  of = spaces.get(space)
  step_fn = torch_step.make_step(
    torch_nets.build(of), *inputs.images(of, batch_size, seed)
  )
  float(step_fn(inputs.archs(of, 1, seed)[0]))
