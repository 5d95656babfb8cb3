"""What a Config says of logging, as objects."""

import importlib.util
from pathlib import Path

from jaxnas import runs
from jaxnas.config import Config, flatten
from jaxnas.training import metrics


def check(config: Config) -> None:
  """Raises ValueError where a package for logging is missing."""
  for extra, module in (('tensorboard', 'tensorboardX'), ('wandb', 'wandb')):
    wanted = getattr(config.logging, extra)
    if wanted and importlib.util.find_spec(module) is None:
      raise ValueError(f"logging.{extra} needs pip install 'jaxnas[{extra}]'.")


def mirrors(config: Config, workdir: Path) -> list[metrics.Mirror]:
  """Where rows of metrics go besides their file."""
  out: list[metrics.Mirror] = []
  if not runs.writes():
    return out
  if config.logging.tensorboard:
    out.append(metrics.tensorboard(workdir / 'tensorboard'))
  if config.logging.wandb:
    out.append(metrics.weights_and_biases(workdir, flatten(config)))
  return out
