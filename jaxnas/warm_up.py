"""The warm-up of a run, for another run to start from."""

from pathlib import Path

from jaxnas import runs
from jaxnas.config import Config, differences

# Fields of debiasing that a warm-up with prototypes depends on.
ONLINE = (
  'debias.candidates',
  'density.estimator',
  'density.lookup',
  'density.prototypes',
  'density.tensors',
)


def check(run: Path, config: Config, steps: int) -> Path:
  """Raises where `run` did not warm up, so long, as `config` would."""
  other = runs.read_config(run)
  later = ('debias.', 'density.', 'ranking.', 'retrain.')
  # Prototypes learn from the first step on.
  clusters = 'prototypes' in (config.density.estimator, other.density.estimator)
  early = ONLINE if clusters else ()
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
  return run


def same(run: Path, config: Config, steps: int) -> Path | None:
  """`run`, if it warmed up as this experiment would."""
  try:
    return check(run, config, steps)
  except (ValueError, FileNotFoundError):
    return None
