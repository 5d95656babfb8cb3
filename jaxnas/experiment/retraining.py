"""Accuracies of architectures that are trained alone: one, some or all."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas import data, truth
from jaxnas.config import digest
from jaxnas.experiment import dump, origin
from jaxnas.experiment.parts import StandAlone
from jaxnas.experiment.stand_alone import Trainer, make_trainer
from jaxnas.runtime import (
  errors,
  files,
  jsonl,
  kinds,
  lock,
  places,
  progress,
  words,
)
from jaxnas.runtime.preemption import Preemption
from jaxnas.spaces import Space
from jaxnas.truth import correlation

# The file of a run that says what it trains.
TRAINS = 'retrain.json'

# The file of what one architecture came to.
RESULT = 'result.json'

# The file of what each architecture and seed came to, and its rows.
RESULTS = 'results.jsonl'
ROW = {
  'arch': str,
  'seed': int,
  'accuracy': kinds.NUMBER,
  'wall_s?': kinds.NUMBER,
}

# The file of what all of them came to.
TABLE = 'table.json'


def is_of_retraining(run: Path) -> bool:
  """Returns True if jaxnas.retrain wrote this folder."""
  return (run / TRAINS).exists()


def arch_of(run: Path) -> str | None:
  """Returns the architecture that a run trains, None for several.

  Raises Damaged where its file does not say it.
  """
  return files.read_json(run / TRAINS, {'arch': (str, type(None))})['arch']


def listed_in(run: Path) -> list[str] | None:
  """Returns the architectures that a run trains for a table, None for all.

  Raises Damaged where its file does not say them.
  """
  kind = {'archs?': ([str], type(None))}
  return files.read_json(run / TRAINS, kind).get('archs')


def write_request(
  run: Path, arch: str | None, archs: Sequence[str] | None = None
) -> None:
  """Writes what a run trains: one architecture, some for a table, or all."""
  files.write_json(
    run / TRAINS,
    {'arch': arch, 'archs': None if archs is None else [*archs]},
  )


def retrain(
  built: StandAlone, arch: str, workdir: Path, preemption: Preemption
) -> None:
  """Trains one architecture, writes what it reaches, and prints it.

  Args:
    built: from `build.stand_alone`, of this architecture.
    arch: in the space's notation.
    workdir: a run directory; what it holds is not repeated.
    preemption: an active one; signals end training by Stopped.
  """
  made_by = _origin(built, workdir)
  trainer = make_trainer(built, workdir, preemption, note=made_by.save)
  arch_1xE = built.space.parse(arch)[None]
  accuracy_1xS = _train(built, arch_1xE, workdir, trainer, preemption)
  write_result(built, arch, accuracy_1xS[0], workdir / RESULT)


def retrain_rows(
  built: StandAlone,
  archs: Sequence[str],
  opened: Callable[[str], Path],
  preemption: Preemption,
) -> Iterator[tuple[str, Exception | None]]:
  """Trains architectures of a table one by one, each in a folder of its own.

  They get the digits that `retrain_listed` gives them. Each resumes from its
  checkpoints, which go once it is done: a table has thousands of them. One that
  fails does not lose the others.

  Args:
    built: from `build.stand_alone`, of any architecture.
    archs: in the space's notation.
    opened: opens the run directory of an architecture; what that holds is not
      repeated.
    preemption: an active one; signals end training by Stopped.

  Yields each architecture once it is done, and the error that ended it, if any.
  """
  folder = Path()
  made_by: origin.Origin | None = None

  def note() -> None:
    if made_by is not None:
      made_by.save()

  # One for all: it has compiled their program.
  trainer = make_trainer(built, lambda: folder, preemption, note=note)
  for arch in archs:
    preemption.check()
    folder = opened(arch)
    if (folder / RESULT).exists():
      yield arch, None
      continue
    try:
      made_by = _origin(built, folder)
      arch_1xE = built.space.parse(arch)[None]
      accuracy_1xS = _train(built, arch_1xE, folder, trainer, preemption)
      write_result(built, arch, accuracy_1xS[0], folder / RESULT)
      for of_seed in folder.glob('seed_*'):
        places.remove(of_seed)
    except lock.Lost:
      raise
    except errors.OF_WORK as error:
      yield arch, error
    else:
      yield arch, None


def retrain_listed(
  built: StandAlone,
  archs_AxE: Int[np.ndarray, 'A E'],
  workdir: Path,
  preemption: Preemption,
) -> None:
  """Trains architectures one after the other, and writes their table.

  Args:
    built: from `build.stand_alone`, of any architecture.
    archs_AxE: different ones.
    workdir: a run directory; what it holds is not repeated.
    preemption: an active one; signals end training by Stopped.
  """
  archs_DxE, form_A = networks(built.space, archs_AxE)
  made_by = _origin(built, workdir)
  trainer = make_trainer(built, None, preemption, note=made_by.save)
  accuracy_DxS = _train(built, archs_DxE, workdir, trainer, preemption)
  write_table(
    truth.Table(built.space, archs_AxE, accuracy_DxS[form_A]),
    workdir / TABLE,
    provenance(built.config.data.name, built.skipped),
  )


def _origin(built: StandAlone, workdir: Path) -> origin.Origin:
  """Says by what a run is computed, and warns where it goes on otherwise."""
  made_by = origin.Origin(workdir, precision=str(built.net.dtype))
  results, of = workdir / RESULTS, digest(built.config)
  if read_results(results, of) or any(workdir.glob('seed_*/checkpoints/*')):
    made_by.goes_on()
  made_by.save()
  return made_by


def _train(
  built: StandAlone,
  archs_AxE: Int[np.ndarray, 'A E'],
  workdir: Path,
  trainer: Trainer,
  preemption: Preemption,
) -> Float[np.ndarray, 'A S']:
  """Trains, or goes on with it; a failure leaves a dump."""
  with dump.of_stand_alone(built, workdir, all=built.net.arch is None):
    return train_all(
      built.space,
      archs_AxE,
      trainer,
      range(built.config.retrain.seeds),
      workdir / RESULTS,
      digest(built.config),
      preemption.check,
    )


def networks(
  space: Space, archs_AxE: Int[np.ndarray, 'A E']
) -> tuple[Int[np.ndarray, 'D E'], Int[np.ndarray, ' A']]:
  """Returns the networks to train, and each architecture's row among them.

  Of architectures that are the same network one is trained.
  """
  forms_AxE = space.canonical(archs_AxE)
  archs_DxE, form_A = np.unique(forms_AxE, axis=0, return_inverse=True)
  return archs_DxE, form_A.reshape(-1)


def train_all(
  space: Space,
  archs_AxE: Int[np.ndarray, 'A E'],
  trainer: Trainer,
  seeds: Sequence[int],
  results: Path,
  of: str,
  poll: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, 'A S']:
  """Returns accuracies of every arch and seed; known ones are not repeated.

  Args:
    space: the space of the architectures.
    archs_AxE: the architectures to train.
    trainer: from `make_trainer`.
    seeds: the seeds of each architecture.
    results: a jsonl file; a row is added when an arch and seed is done.
    of: digest of the run's config, with which rows are sealed.
    poll: called before each; may raise.
  """
  done = read_results(results, of)
  wanted = [
    (space.format(arch_E), seed) for arch_E in archs_AxE for seed in seeds
  ]
  missing = [pair for pair in wanted if pair not in done]
  for arch, seed in progress.track(missing, 'stand-alone', len(missing), poll):
    since_s = time.monotonic()
    accuracy = trainer(space.parse(arch), seed)
    done[arch, seed] = accuracy
    row = {
      'arch': arch,
      'seed': seed,
      'accuracy': accuracy,
      'wall_s': round(time.monotonic() - since_s, 3),
    }
    jsonl.append_row(results, row, of)
  return np.array([done[pair] for pair in wanted]).reshape(len(archs_AxE), -1)


def read_results(file: Path, of: str) -> dict[tuple[str, int], float]:
  """Reads what is done; takes out a row that an interruption cut short.

  Rows that are damaged, or of another run, are kept aside.
  """
  rows = jsonl.read_good(file, ROW, of)
  jsonl.write_rows(file, rows, of)
  return accuracies(rows)


def accuracies(
  rows: Iterable[Mapping[str, Any]],
) -> dict[tuple[str, int], float]:
  """Returns the accuracy of each arch and seed."""
  return {(row['arch'], row['seed']): row['accuracy'] for row in rows}


def gathered(
  workdir: Path, of: str, elsewhere: Mapping[str, Path], seeds: int
) -> list[dict[str, Any]]:
  """Reads the rows of a table so far; it writes nothing.

  Args:
    workdir: the run directory of the table.
    of: digest of its config.
    elsewhere: folders in which architectures are trained, by architecture.
    seeds: number of runs of each.
  """
  rows = jsonl.read_rows(workdir / RESULTS, ROW, of)
  done = accuracies(rows)
  for arch, folder in elsewhere.items():
    if any((arch, seed) not in done for seed in range(seeds)):
      rows += [
        row
        for row in jsonl.read_rows(folder / RESULTS, ROW, of)
        if (row['arch'], row['seed']) not in done
      ]
  return rows


def table_of(
  space: Space,
  archs_AxE: Int[np.ndarray, 'A E'],
  done: Mapping[tuple[str, int], float],
  seeds: int,
) -> truth.Table | None:
  """Returns the table of those that are done with all seeds; None: of none."""
  archs_DxE, form_A = networks(space, archs_AxE)
  accuracy_DxS = np.array(
    [
      [done.get((space.format(arch_E), seed), np.nan) for seed in range(seeds)]
      for arch_E in archs_DxE
    ]
  )
  accuracy_AxS = accuracy_DxS[form_A]
  known_A = np.isfinite(accuracy_AxS).all(axis=1)
  if not known_A.any():
    return None
  return truth.Table(space, archs_AxE[known_A], accuracy_AxS[known_A])


def write_table(
  table: truth.Table, file: Path, made_of: Mapping[str, Any]
) -> None:
  """Writes a table of truth, and says how far it can be trusted.

  Its space must be the one for the images that were trained on.
  """
  seeds = table.seeds_AxS.shape[1]
  made_on = table.space.image_shape, table.space.classes
  metadata = {
    'agreement_of_two_seeds': agreement(table.seeds_AxS, 1),
    'agreement_of_halves': agreement(table.seeds_AxS, seeds // 2),
    **made_of,
  }
  truth.dump(dataclasses.replace(table, images=made_on), file, **metadata)
  mean_A = table.accuracy_A
  said = [
    f'{file}: {words.counted(len(mean_A), "architecture")}, accuracy '
    f'{mean_A.min():.2%} to {mean_A.max():.2%}'
  ]
  for name, of in (('two_seeds', 'two seeds'), ('halves', 'halves of them')):
    if (found := metadata[f'agreement_of_{name}']) is not None:
      said.append(f'Kendall {found:.3f} between {of}')
  print(', '.join(said))


def write_result(
  built: StandAlone, arch: str, accuracy_S: Float[np.ndarray, ' S'], file: Path
) -> None:
  """Writes what one architecture reaches, and prints it."""
  costs = built.space.costs(built.space.parse(arch)[None])
  result = {
    'space': built.space.name,
    'arch': arch,
    'accuracy': float(accuracy_S.mean()),
    'seeds': accuracy_S.tolist(),
    'params': int(costs.params_A[0]),
    'macs': int(costs.macs_A[0]),
    **provenance(built.config.data.name, built.skipped),
  }
  files.write_result(file, result, {'config': digest(built.config)})
  seeds = ', '.join(f'{accuracy:.2%}' for accuracy in accuracy_S)
  print(
    f'{arch}: {result["accuracy"]:.2%} ({seeds}), {result["params"]:,} '
    f'parameters, {result["macs"]:,} multiply-adds'
  )


def provenance(
  images: str, skipped: data.SkippedImages | None = None
) -> dict[str, Any]:
  """Returns where accuracies come from, ready for JSON.

  It warns of images that were replaced.
  """
  if skipped:
    print(f'warning: {skipped}')
  return {
    'data': images,
    'skipped_images': len(skipped or ()),
    **origin.describe(),
  }


def agreement(
  accuracy_AxS: Float[np.ndarray, 'A S'], seeds: int
) -> float | None:
  """Returns the mean tau-b between means over disjoint sets of seeds.

  With one seed a side it says how far a single run can be trusted, with half
  of them a side nearly how far the mean of all can. None where undefined.
  """
  everyone = range(accuracy_AxS.shape[1])
  taus = [
    correlation.kendall(
      accuracy_AxS[:, one].mean(axis=1), accuracy_AxS[:, other].mean(axis=1)
    )
    for one in itertools.combinations(everyone, seeds)
    for other in itertools.combinations(sorted({*everyone} - {*one}), seeds)
    if one < other
  ]
  defined = [tau for tau in taus if tau is not None]
  return float(np.mean(defined)) if defined else None
