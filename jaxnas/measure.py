"""Compare the architectures of a trained supernet: densities and distances.

For instance `python -m jaxnas.measure --run runs/macro --measure gradient
functional`.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from jaxnas import cli, locks, measure_tables, runs, spaces, trained
from jaxnas.config import Config
from jaxnas.measure_flags import configs_of, parse, seen_with
from jaxnas.validation import at_most

if TYPE_CHECKING:
  from jaxnas import density
  from jaxnas.build import Experiment
  from jaxnas.training.step import TrainState

# Distances between more architectures than these make no picture.
DRAWN = 2000


def main(argv: Sequence[str] | None = None) -> int:
  args, run = parse(argv, __doc__)
  workdir = args.workdir or args.run / 'measure'
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas import build, density_config
  from jaxnas.training.preemption import Preemption

  cli.prepare_process()
  with cli.usage_errors():
    configs = configs_of(args, run)
    archs_AxE = choose(spaces.get(run.space), args.archs, run.seed)
    experiment = build.experiment(seen_with(run, args.density))
    check_images(experiment)
    sampler = experiment.sampler
    routed_AxF = sampler.route(sampler.init(), archs_AxE)
    for config in configs.values():
      density_config.check_archs(config, experiment.net, routed_AxF)
    state = trained.newest(experiment, args.run)
    runs.make_workdir(workdir)
    locks.keep(workdir)
  print(
    f'{args.run}: the checkpoint is at step {int(state.step)} of '
    f'{experiment.steps}'
  )
  stopped = (
    f'stopped: {workdir} keeps the densities that are done; the same command '
    'estimates all of them again'
  )
  with cli.outcome(workdir, stopped), Preemption() as preemption:
    measured = measure(
      experiment, state, configs, archs_AxE, workdir, poll=preemption.check
    )
    runs.write_json(
      workdir / 'measure.json',
      runs.environment(
        run=str(args.run),
        step=int(state.step),
        images=len(experiment.held_out.density),
        skipped_images=len(experiment.skipped),
        precision=str(experiment.net.dtype),
      ),
    )
  measure_tables.densities(experiment.space, args.estimator, measured)
  like = next(iter(configs.values()))
  measure_tables.correlations(
    measure_tables.found(workdir, args.run, archs_AxE, like, int(state.step))
  )
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
  return space.some(streams.rng(seed, 'measure'), count)


def check_images(experiment: 'Experiment') -> None:
  """Raises ValueError where there are too few validation images."""
  given = experiment.config.density
  at_most(
    'density.batches * density.batch_size',
    given.batches * given.batch_size,
    len(experiment.held_out.density),
    'validation images',
  )


def measure(
  experiment: 'Experiment',
  state: 'TrainState',
  configs: Mapping[str, Config],
  archs_AxE: Int[np.ndarray, 'A E'],
  workdir: Path,
  *,
  poll: Callable[[], None] = lambda: None,
) -> 'dict[str, density.Density]':
  """Densities by measure, each saved and its distances drawn when it is done.

  Args:
    experiment: from `build.experiment`; its held-out images are looked at.
    state: of its training.
    configs: by measure; each with the experiment's batches.
    archs_AxE: what is compared.
    workdir: a folder for density-MEASURE-ESTIMATOR.npz, density.png and
      distances-MEASURE.png.
    poll: called before each block; may raise.
  """
  from jaxnas import density, density_config, figures

  subject = density_config.subject(experiment, state, archs_AxE)
  out = {}
  for name, config in configs.items():
    estimator = config.density.estimator
    picture = workdir / f'distances-{name}.png'
    features = features_to_draw(config, subject, picture, poll)
    out[name] = density_config.estimate(
      config, subject, poll, features=features
    )
    density.save(
      out[name],
      workdir / f'density-{name}-{estimator}.npz',
      density_config.facts(config, int(state.step)),
    )
    if features is not None:
      compared = density_config.measure(
        config, subject.net, subject.params, subject.archs_AxE
      )
      distance_AxA = density.matrix(compared.distance, features, poll=poll)
      order_A = np.argsort(-out[name].alpha_A, kind='stable')
      figures.matrix(
        distance_AxA[np.ix_(order_A, order_A)],
        picture,
        title=f'{name} distance of {len(order_A)} architectures',
      )
  figures.histogram(
    {
      f'{name}\n{configs[name].density.estimator}': estimated.alpha_A
      for name, estimated in out.items()
    },
    workdir / 'density.png',
  )
  return out


def features_to_draw(
  config: Config,
  subject: 'density.Subject',
  picture: Path,
  poll: Callable[[], None],
) -> dict[str, np.ndarray] | None:
  """Features of all, unless their distances make no picture: says why."""
  from jaxnas import density, density_config

  net, params, archs_AxE, images, _ = subject
  if len(archs_AxE) > DRAWN:
    print(f'{picture} is not drawn: {len(archs_AxE)} architectures are many')
    return None
  compared = density_config.measure(config, net, params, archs_AxE)
  memory_gb = config.density.memory_gb
  size = density.feature_bytes(
    compared, net, params, len(archs_AxE), len(images), len(images[0])
  )
  if size > memory_gb * 1e9:
    print(
      f'{picture} is not drawn: features take {size / 1e9:.3g} GB, more than '
      f'--density.memory_gb {memory_gb:g}; raise that, or lower --archs'
    )
    return None
  return density.gather(subject, compared, memory_gb=memory_gb, poll=poll)


if __name__ == '__main__':
  sys.exit(main())
