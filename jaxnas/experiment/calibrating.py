"""A calibration of a run's ranking by a few architectures trained alone."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxnas import density, spaces, truth
from jaxnas.config import Config, digest, run_folder
from jaxnas.experiment import contents, outcomes, predictions, retraining
from jaxnas.runtime import files
from jaxnas.runtime.rng import generator
from jaxnas.truth import calibration

# Files of a calibration.
RESULT, POSTERIOR, SUGGESTED = (
  'calibration.json',
  'posterior.npz',
  'suggested.txt',
)


class Ranked(NamedTuple):
  """A run's ranking, ready to be calibrated."""

  space: spaces.Space
  archs_AxE: Int[np.ndarray, 'A E']
  score_A: Float[np.ndarray, ' A']
  known: calibration.Known
  """Everything that is known without training."""
  free: calibration.Known
  """All of that but what the supernet says."""
  facts: dict[str, Any]


def read(run: Path, config: Config) -> Ranked:
  """Reads what a run has ranked, and its densities where it has them.

  Raises FileNotFoundError where it has ranked nothing, ValueError where the
  folder is none of training, or Damaged.
  """
  run_folder.check_command(run)
  space = contents.space_of(run, config)
  file, facts = run / 'predictions.npz', {'config': digest(config)}
  if not file.exists():
    raise FileNotFoundError(
      f'{run} has ranked nothing yet: finish it with python -m jaxnas.train '
      f'--workdir {run} --resume.'
    )
  ranked = predictions.read(file, space, facts)
  archs_AxE, score_A = ranked.archs_AxE, ranked.accuracy_A
  return Ranked(
    space,
    archs_AxE,
    score_A,
    calibration.known(
      space, archs_AxE, score_A, _densities(run, space, archs_AxE, facts)
    ),
    calibration.known(space, archs_AxE),
    ranked.facts,
  )


def _densities(
  run: Path,
  space: spaces.Space,
  archs_AxE: Int[np.ndarray, 'A E'],
  facts: dict[str, Any],
) -> Float[np.ndarray, ' A'] | None:
  """Returns densities of these architectures; None where one has none."""
  file = run / 'density.npz'
  if not (space.enumerable and file.exists()):
    return None
  found, _ = density.read_file(file, facts)
  alpha_A = space.looked_up(found.archs_AxE, found.alpha_A, archs_AxE)
  return None if np.isnan(alpha_A).any() else alpha_A


def truths(given: Path, config: Config, space: spaces.Space) -> truth.Table:
  """Reads accuracies of architectures trained alone.

  Args:
    given: a table, or a folder of `jaxnas.retrain`, whose rows count as they
      stand.
    config: the config of the run.
    space: of the architectures.

  Raises ValueError or FileNotFoundError, one line.
  """
  if not given.is_dir():
    return truth.load(space, given, config.data.name).on(space)
  if (given / 'table.json').exists():
    table = truth.load(space, given / 'table.json', config.data.name)
    return table.on(space)
  if not retraining.is_of_retraining(given):
    raise ValueError(
      f'--truths {given} is no folder of jaxnas.retrain: give that, or a table.'
    )
  of = run_folder.read_config(given)
  if (of.space, of.data.name) != (config.space, config.data.name):
    raise ValueError(
      f'--truths {given} trained {of.space} on {of.data.name}; the run is of '
      f'{config.space} on {config.data.name}.'
    )
  done = outcomes.read_results(given / outcomes.RESULTS, digest(of))
  if not done:
    raise ValueError(
      f'--truths {given} has trained nothing to the end yet: finish it with '
      f'python -m jaxnas.retrain --workdir {given} --resume.'
    )
  by_arch: dict[str, list[float]] = {}
  for (arch, _), accuracy in done.items():
    by_arch.setdefault(arch, []).append(accuracy)
  archs_AxE = np.stack([space.parse(arch) for arch in by_arch])
  means_Ax1 = np.array([[np.mean(values)] for values in by_arch.values()])
  return truth.Table(space, archs_AxE, means_Ax1, 'fractions', str(given))


def rows_known(
  ranked: Ranked, table: truth.Table
) -> tuple[Int[np.ndarray, ' K'], Float[np.ndarray, ' K']]:
  """Returns rows and accuracies of the ranked architectures of a table.

  Raises ValueError for fewer than two, or where all are alike.
  """
  accuracy_A = table.known(ranked.archs_AxE)
  known_K = np.flatnonzero(~np.isnan(accuracy_A))
  if len(known_K) < calibration.FEWEST:
    raise ValueError(
      f'--truths {table.source} has {len(known_K)} of the '
      f'{len(ranked.archs_AxE):,} architectures that the run has ranked: give '
      'at least two of them.'
    )
  if not np.ptp(accuracy_A[known_K]):
    raise ValueError(
      f'--truths {table.source}: all {len(known_K)} accuracies are '
      f'{accuracy_A[known_K[0]]:.2%}: give some that differ.'
    )
  return known_K, accuracy_A[known_K]


def calibrate(
  ranked: Ranked,
  trained_K: Int[np.ndarray, ' K'],
  accuracy_K: Float[np.ndarray, ' K'],
  table: truth.Table | None,
  workdir: Path,
  *,
  seed: int,
) -> tuple[calibration.Posterior, dict[str, Any]]:
  """Calibrates, and writes calibration.json and posterior.npz.

  Args:
    ranked: from `read`.
    trained_K: rows of the architectures that are known to be so good.
    accuracy_K: their accuracies, fractions.
    table: ground truth of others, which are held to the posterior.
    workdir: a folder.
    seed: of intervals.

  Returns the posterior, and the content of calibration.json.
  """
  rng = generator(seed, 'calibration')
  truth_A = np.full(len(ranked.archs_AxE), np.nan)
  if table is not None:
    truth_A = table.known(ranked.archs_AxE)
  truth_A[trained_K] = np.nan
  out_R = np.flatnonzero(~np.isnan(truth_A))
  found = calibration.posterior(ranked.known, trained_K, accuracy_K)
  without = calibration.posterior(ranked.free, trained_K, accuracy_K)
  result: dict[str, Any] = {
    'k': len(trained_K),
    'n': len(ranked.archs_AxE),
    'trained': {
      ranked.space.format(ranked.archs_AxE[row]): float(accuracy)
      for row, accuracy in zip(trained_K, accuracy_K, strict=True)
    },
    'left_out': {
      name: calibration.agreement(
        calibration.left_out(known, trained_K, accuracy_K), accuracy_K, rng
      )
      for name, known in (('run', ranked.known), ('without', ranked.free))
    }
    if len(trained_K) > calibration.FEWEST
    else {},
    'held_out': {
      name: calibration.agreement(values_A[out_R], truth_A[out_R], rng)
      for name, values_A in (
        ('raw', ranked.score_A),
        ('without', without.mean_A),
        ('run', found.mean_A),
      )
    }
    if len(out_R) >= calibration.FEWEST
    else {},
    'best_arch': ranked.space.format(ranked.archs_AxE[found.mean_A.argmax()]),
    'best_arch_mean': float(found.mean_A.max()),
    'best_arch_std': float(found.std_A[found.mean_A.argmax()]),
  }
  files.write_npz(
    workdir / POSTERIOR,
    {'archs_AxE': ranked.archs_AxE, **found._asdict()},
    ranked.facts,
  )
  files.write_result(workdir / RESULT, result, ranked.facts)
  return found, result


def suggest(
  ranked: Ranked,
  count: int,
  trained_K: Int[np.ndarray, ' K'],
  accuracy_K: Float[np.ndarray, ' K'],
  found: calibration.Posterior | None,
  workdir: Path,
) -> list[str]:
  """Chooses architectures to train next, and writes them, one a line.

  Without a posterior they are spread over the run's ranking; with one they are
  those that may well exceed the best known.
  """
  if found is None:
    chosen_N = calibration.by_quantiles(ranked.score_A, count, trained_K)
  else:
    chosen_N = calibration.by_improvement(
      found, count, trained_K, float(accuracy_K.max())
    )
  names = [ranked.space.format(ranked.archs_AxE[row]) for row in chosen_N]
  files.write_text(workdir / SUGGESTED, ''.join(f'{name}\n' for name in names))
  return names
