"""Compare the architectures of a trained supernet: densities and distances.

For instance `python -m jaxnas.measure --run runs/macro --measure gradient
functional`.
"""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from jaxnas import cli, correlation, runs, spaces
from jaxnas.config import Config
from jaxnas.measure_flags import configs_of, parse, seen_with

if TYPE_CHECKING:
  from jaxnas import density
  from jaxnas.build import Experiment
  from jaxnas.training.step import TrainState

# Distances between more architectures than these make no picture.
DRAWN = 2000

# Architectures shown at either end.
SHOWN = 5

# Densities that lie closer together differ by rounding alone.
ROUNDING = 1e-9


def main(argv: Sequence[str] | None = None) -> int:
  args, run = parse(argv, __doc__)
  workdir = args.workdir or args.run / 'measure'
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas import build, debiasing
  from jaxnas.training.preemption import Preemption, Stopped

  cli.keep_compiled()
  with cli.usage_errors():
    configs = configs_of(args, run)
    archs_AxE = choose(spaces.get(run.space), args.archs, run.seed)
    experiment = build.experiment(seen_with(run, args.density))
    check_images(experiment)
    for config in configs.values():
      debiasing.check_archs(config, experiment.net, archs_AxE)
    state = newest(experiment, args.run)
    workdir.mkdir(parents=True, exist_ok=True)
  epochs = run.warmup_epochs + run.epochs
  print(
    f'{args.run}: the checkpoint is at step {int(state.step)} of '
    f'{epochs * experiment.training.steps_per_epoch}'
  )
  with cli.outcome(workdir), Preemption() as preemption:
    try:
      measured = measure(
        experiment, state.params, configs, archs_AxE, workdir, preemption.check
      )
    except Stopped:
      # Nothing to resume: outcome() would say --resume.
      print(
        f'stopped: {workdir} keeps the densities that are done; the same '
        'command estimates all of them again',
        file=sys.stderr,
      )
      raise SystemExit(cli.STOPPED) from None
    runs.write_json(
      workdir / 'environment.json',
      runs.environment(
        run=str(args.run),
        step=int(state.step),
        images=len(experiment.density),
        skipped_images=len(experiment.skipped),
        precision=str(experiment.net.dtype),
      ),
    )
  show(experiment.space, args.estimator, measured)
  show_correlations(found(workdir, args.run, archs_AxE))
  return 0


def choose(
  space: spaces.Space, count: int | None, seed: int
) -> Int[np.ndarray, 'A E']:
  """All architectures, or `count` drawn with a fixed seed.

  Raises ValueError where there are not so many, or too many for all.
  """
  from jaxnas import streams

  if count is not None and not 2 <= count <= space.size:
    raise ValueError(
      f'--archs is {count}; {space.name} has {space.size:.6g} architectures, '
      'of which at least 2 are compared.'
    )
  if count is None:
    if space.enumerable:
      return space.enumerate()
    raise ValueError(
      f'{space.name} has {space.size:.2g} architectures: set --archs to how '
      'many to compare.'
    )
  rng = streams.rng(seed, 'measure')
  if not space.enumerable:
    return space.random(rng, count)
  archs_AxE = space.enumerate()
  return archs_AxE[np.sort(rng.choice(len(archs_AxE), count, replace=False))]


def check_images(experiment: 'Experiment') -> None:
  """Raises ValueError where there are too few validation images."""
  given = experiment.config.density
  needed, there = given.batches * given.batch_size, len(experiment.density)
  if needed > there:
    raise ValueError(
      f'density.batches * density.batch_size is {needed}; there are {there} '
      'validation images.'
    )


def newest(experiment: 'Experiment', run: Path) -> 'TrainState':
  """The state of the newest checkpoint.

  Raises FileNotFoundError where there is none.
  """
  from jaxnas.training.checkpoint import Checkpoints

  folder = run / 'checkpoints'
  if folder.is_dir():
    with Checkpoints(folder) as checkpoints:
      if steps := checkpoints.steps():
        return checkpoints.restore(steps[-1], experiment.init_state())[0]
  raise FileNotFoundError(
    f'{run} has no checkpoint: train it further with --workdir {run} --resume.'
  )


def measure(
  experiment: 'Experiment',
  params: Any,
  configs: Mapping[str, Config],
  archs_AxE: Int[np.ndarray, 'A E'],
  workdir: Path,
  poll: Callable[[], None] = lambda: None,
) -> 'dict[str, density.Density]':
  """Densities by measure, each saved and its distances drawn when it is done.

  Args:
    experiment: from `build.experiment`; its held-out images are looked at.
    params: shared weights.
    configs: by measure; each with the experiment's batches.
    archs_AxE: what is compared.
    workdir: a folder for density-MEASURE-ESTIMATOR.npz, density.png and
      distances-MEASURE.png.
    poll: called before each block; may raise.
  """
  from jaxnas import debiasing, density, figures

  subject = debiasing.subject(experiment, params, archs_AxE)
  out = {}
  for name, config in configs.items():
    out[name] = debiasing.estimate(config, subject, poll)
    estimator = config.density.estimator
    density.save(out[name], workdir / f'density-{name}-{estimator}.npz')
    draw_distances(config, subject, out[name].alpha_A, workdir, poll)
  figures.histogram(
    {
      f'{name}\n{configs[name].density.estimator}': level(estimated.alpha_A)
      for name, estimated in out.items()
    },
    workdir / 'density.png',
  )
  return out


def draw_distances(
  config: Config,
  subject: 'density.Subject',
  alpha_A: Float[np.ndarray, ' A'],
  workdir: Path,
  poll: Callable[[], None],
) -> None:
  """Draws the distance matrix, densest first, or says why not."""
  from jaxnas import debiasing, density, figures

  name, (net, params, archs_AxE, *_) = config.density.measure, subject
  file = workdir / f'distances-{name}.png'
  if len(archs_AxE) > DRAWN:
    print(f'{file} is not drawn: {len(archs_AxE)} architectures are too many')
    return
  try:
    distance_AxA = density.distance_matrix(
      subject,
      debiasing.measure(config, net, params, archs_AxE),
      memory_gb=config.density.memory_gb,
      poll=poll,
    )
  except ValueError as error:
    print(f'{file} is not drawn: {error}')
    return
  order_A = np.argsort(-level(alpha_A), kind='stable')
  figures.matrix(
    distance_AxA[np.ix_(order_A, order_A)],
    file,
    title=f'{name} distance of {len(order_A)} architectures',
  )


def level(alpha_A: Float[np.ndarray, ' A']) -> Float[np.ndarray, ' A']:
  """Exactly constant where densities differ by rounding alone."""
  if np.ptp(alpha_A) <= ROUNDING * np.abs(alpha_A).max():
    return np.full_like(alpha_A, alpha_A[0])
  return alpha_A


def found(
  workdir: Path, run: Path, archs_AxE: Int[np.ndarray, 'A E']
) -> dict[str, Float[np.ndarray, ' A']]:
  """Densities of just these archs: all in the folder, and the run's own."""
  from jaxnas import density

  files = {
    file.stem.removeprefix('density-'): file
    for file in sorted(workdir.glob('density-*.npz'))
  }
  out = {}
  for name, file in (files | {'run': run / 'density.npz'}).items():
    # Of other architectures, or of none.
    with contextlib.suppress(ValueError, FileNotFoundError):
      out[name] = level(density.load(file, archs_AxE).alpha_A)
  return out


def show(
  space: spaces.Space,
  estimator: str,
  measured: 'Mapping[str, density.Density]',
) -> None:
  """Prints the range, and the architectures at both ends, by measure."""
  counts = {len(estimated.alpha_A) for estimated in measured.values()}
  out = RichTable(
    title=f'density of {max(counts)} architectures, {estimator}',
    box=box.SIMPLE_HEAD,
  )
  out.add_column('measure')
  out.add_column('rank', justify='right')
  # MobileNet's names are longer than a line.
  out.add_column('architecture', overflow='fold')
  out.add_column('density', justify='right')
  for name, (archs_AxE, alpha_A) in measured.items():
    notes = [name, f'{alpha_A.min():.4g} to {alpha_A.max():.4g}']
    order_A = np.argsort(-level(alpha_A), kind='stable')
    ranks = range(len(order_A))
    for rank in sorted({*ranks[:SHOWN], *ranks[-SHOWN:]}):
      a = order_A[rank]
      out.add_row(
        notes.pop(0) if notes else '',
        str(rank + 1),
        space.format(archs_AxE[a]),
        f'{alpha_A[a]:.6g}',
      )
      if rank + 1 == SHOWN < len(order_A) - SHOWN:
        out.add_row('', '...')
    out.add_section()
  Console().print(out)


def show_correlations(alphas: Mapping[str, Float[np.ndarray, ' A']]) -> None:
  """Prints how alike the densities order architectures, where two are."""
  if len(alphas) < 2:
    return
  out = RichTable(
    title='Spearman correlation between densities', box=box.SIMPLE_HEAD
  )
  out.add_column('')
  out.add_column('', overflow='fold')
  for number in range(1, len(alphas) + 1):
    out.add_column(str(number), justify='right')
  for number, (name, alpha_A) in enumerate(alphas.items(), 1):
    rhos = (
      correlation.spearman(alpha_A, other_A) for other_A in alphas.values()
    )
    out.add_row(
      str(number),
      name.replace('-', ' '),
      *('-' if rho is None else f'{rho:.3f}' for rho in rhos),
    )
  Console().print(out)


if __name__ == '__main__':
  sys.exit(main())
