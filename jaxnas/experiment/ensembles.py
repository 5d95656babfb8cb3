"""Several supernets of one run, whose mean score ranks better than one.

The noise of one supernet is the largest loss of a ranking. Members differ in
initialisation, draws and order of images, and share the division of images and
those that rank. Each is a run of its own in RUN/members, which resumes as any
other; RUN itself is the first. Where there are devices for it several are
trained at once, on CPUs with the bits of one after the other, and a run may go
on either way.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxnas import truth
from jaxnas.config import Config, digest
from jaxnas.experiment import contents, predictions, ranking, run, trained
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import files, processes
from jaxnas.runtime.preemption import Preemption
from jaxnas.runtime.rng import child_seed, generator
from jaxnas.training import loop, together
from jaxnas.training.turns import Held, Turns
from jaxnas.truth import agreement, combine, correlation

FOLDER = 'members'

# Resamples of the interval over members and architectures.
RESAMPLES = 200


def member(config: Config, number: int) -> Config:
  """Returns the experiment of a member; the first, 0, is the run itself."""
  alone = dataclasses.replace(config.mesh, members=None)
  if not number:
    return dataclasses.replace(config, ensemble=1, mesh=alone)
  return dataclasses.replace(
    config,
    seed=child_seed(config.seed, 'member', number),
    data=dataclasses.replace(config.data, split_seed=config.split_seed),
    ensemble=1,
    mesh=alone,
  )


def folder(workdir: Path, number: int) -> Path:
  """Returns the run directory of a member."""
  return workdir / FOLDER / str(number) if number else workdir


def check(config: Config) -> None:
  """Raises ValueError where there are too few devices, before any work."""
  wanted, there = config.mesh.members, jax.device_count()
  if (wanted or 1) > 1 and jax.process_count() > 1:
    raise ValueError(
      f'mesh.members {wanted} is of one process, and there are '
      f'{jax.process_count()}: leave it out, and members are trained one after '
      'the other.'
    )
  if (wanted or 1) > there:
    raise ValueError(
      f'mesh.members {wanted} is {wanted} devices; there are {there}. It may '
      'be left out.'
    )


def at_once(config: Config) -> int:
  """Returns how many members are trained at once."""
  if config.mesh.members is not None:
    return config.mesh.members
  if jax.process_count() > 1 or config.mesh.data * config.mesh.paths > 1:
    return 1
  return min(config.ensemble, jax.device_count())


def train(
  experiment: Experiment,
  workdir: Path,
  table: truth.Table | None,
  preemption: Preemption,
  **of_first: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Trains the members that are missing, and ranks by the mean of all.

  Args:
    experiment: the run's.
    workdir: its directory.
    table: ground truth, where there is one.
    preemption: an active one; signals end the work by Stopped.
    of_first: options of `run.turns` for the first member.

  Returns the content of correlation.json, of the first member, and of
  ensemble.json; nothing in processes but the first.
  """
  config = experiment.config
  where = [folder(workdir, number) for number in range(config.ensemble)]
  ranked = [(one / 'predictions.npz').exists() for one in where]
  left = config.ensemble - sum(processes.agreed(ranked))
  size = max(1, min(at_once(config), left))
  if size > 1:
    print(f'{workdir}: {left} members to train, {size} at once')

  def turns(number: int, held: Held) -> Turns[dict[str, Any]]:
    given, options = experiment, of_first
    if number:
      # Images and programs are shared.
      given = dataclasses.replace(experiment, config=member(config, number))
      options = {}
      processes.by_first(
        lambda: str(
          contents.open_run(
            where[number], given.config, given.images, resume=True
          )
        )
      )
    # Bars of several would write over each other.
    shown = size == 1 or number % size == size - 1
    try:
      return (
        yield from run.turns(
          given,
          where[number],
          held,
          table,
          preemption=preemption,
          group=workdir,
          label='training' if shown else None,
          **options,
        )
      )
    except loop.NonFinite as error:
      raise loop.NonFinite(
        f'member {number}: {error}', error.step, error.archs_PxE, error.seed
      ) from error

  members = [
    together.Member(
      experiment.step.seeded(member(config, number).seed),
      functools.partial(turns, number),
    )
    for number in range(config.ensemble)
  ]
  results = together.drive(members, size)
  if not processes.first():
    return {}, {}
  predicted = [
    predictions.read(
      one / 'predictions.npz',
      experiment.space,
      {'config': digest(member(config, number))},
    )
    for number, one in enumerate(where)
  ]
  return results[0], _summarize(experiment, workdir, table, predicted)


def _summarize(
  experiment: Experiment,
  workdir: Path,
  table: truth.Table | None,
  predicted: Sequence[predictions.Predictions],
) -> dict[str, Any]:
  """Writes ensemble.json, and says how far members are apart."""
  config, space = experiment.config, experiment.space
  archs_AxE = predicted[0].archs_AxE
  score_MxA = np.stack([one.accuracy_A for one in predicted])
  mean = combine.Scores(
    archs_AxE,
    score_MxA.mean(axis=0),
    np.mean([one.half_HxA for one in predicted], axis=0),
  )
  rng = generator(config.seed, 'ensemble')
  summary: dict[str, Any] = {
    **ranking.settings(experiment),
    **agreement.correlate(space, archs_AxE, mean.score_A, table, rng),
    'members': len(predicted),
  }
  if table is not None:
    truth_A = table.accuracy(archs_AxE)
    taus = [correlation.kendall(score_A, truth_A) for score_A in score_MxA]
    summary |= {
      'member_kendall': taus,
      'kendall_interval': interval(score_MxA, truth_A, rng),
    }
    print(
      f'{workdir}: tau of single members: '
      + ', '.join('-' if tau is None else f'{tau:.3f}' for tau in taus)
    )
  if config.ranking.steps:
    summary['combined'] = agreement.combined(
      space, combine.combine(space, mean, config.ranking.steps), table, rng
    )
  files.write_result(
    workdir / trained.ENSEMBLE, summary, {'config': experiment.run_digest}
  )
  return summary


def interval(
  score_MxA: Float[np.ndarray, 'M A'],
  truth_A: Float[np.ndarray, ' A'],
  rng: np.random.Generator,
) -> list[float] | None:
  """95% interval of the mean score's tau, over members and architectures.

  None where it is undefined in every resample.
  """
  count = len(score_MxA)

  def tau(score_AxM, truth_A):
    some_AxM = score_AxM[:, rng.integers(count, size=count)]
    return correlation.kendall(some_AxM.mean(axis=1), truth_A)

  found = correlation.bootstrap(tau, score_MxA.T, truth_A, rng, RESAMPLES)
  return None if found is None else [*found]
