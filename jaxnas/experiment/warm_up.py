"""The warm-up of a run, for another run to start from."""

from pathlib import Path

from jaxnas import spaces
from jaxnas.config import Config, differences, run_folder
from jaxnas.experiment import contents
from jaxnas.experiment.contents import Contents

# Fields of debiasing that a warm-up depends on where probabilities are not
# listed: draws are made from candidates, whose densities the state will hold.
EARLY = ('debias.candidates', 'density.estimator', 'density.archs')


def check(
  run: Path, config: Config, steps: int, images: Contents | None = None
) -> Path:
  """Returns the run, if it warmed up as long and as `config` would.

  Args:
    run: a run directory.
    config: the experiment.
    steps: those of its warm-up.
    images: its images, where they are known by now.

  Raises ValueError or FileNotFoundError where it did not.
  """
  other = run_folder.read_config(run)
  later = ('debias.', 'density.', 'ranking.', 'retrain.')
  early = () if spaces.get(config.space).enumerable else EARLY
  for name, (ours, theirs) in differences(config, other).items():
    if name in early or not name.startswith(later):
      raise ValueError(
        f'{run} warmed up with {name} {theirs}, not {ours}: choose another '
        '--warmup_from, or none.'
      )
  if steps and not (run / 'checkpoints' / str(steps)).is_dir():
    raise ValueError(
      f'{run} has no checkpoint at step {steps}, the end of its warm-up: '
      'finish that with --resume, or choose another --warmup_from.'
    )
  if images is not None:
    contents.check(run, images)
  return run


def same(
  run: Path, config: Config, steps: int, images: Contents | None = None
) -> Path | None:
  """Returns the run if it warmed up as this experiment would, else None."""
  try:
    return check(run, config, steps, images)
  except (ValueError, FileNotFoundError):
    return None
