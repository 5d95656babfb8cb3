"""Accuracies of architectures that are trained alone: one, some or all."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxnas import truth
from jaxnas.config import digest
from jaxnas.experiment import dump, origin, outcomes
from jaxnas.experiment.parts import StandAlone
from jaxnas.experiment.stand_alone import Trainer, make_trainer
from jaxnas.runtime import errors, files, jsonl, lock, places, progress
from jaxnas.runtime.preemption import Preemption
from jaxnas.spaces import Space

# The file of a run that says what it trains.
TRAINS = 'retrain.json'


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
  outcomes.write_result(built, arch, accuracy_1xS[0], workdir / outcomes.RESULT)


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
    if (folder / outcomes.RESULT).exists():
      yield arch, None
      continue
    try:
      made_by = _origin(built, folder)
      arch_1xE = built.space.parse(arch)[None]
      accuracy_1xS = _train(built, arch_1xE, folder, trainer, preemption)
      outcomes.write_result(
        built, arch, accuracy_1xS[0], folder / outcomes.RESULT
      )
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
  archs_DxE, form_A = outcomes.networks(built.space, archs_AxE)
  made_by = _origin(built, workdir)
  trainer = make_trainer(built, None, preemption, note=made_by.save)
  accuracy_DxS = _train(built, archs_DxE, workdir, trainer, preemption)
  outcomes.write_table(
    truth.Table(built.space, archs_AxE, accuracy_DxS[form_A]),
    workdir / outcomes.TABLE,
    outcomes.provenance(built.config.data.name, built.skipped),
  )


def _origin(built: StandAlone, workdir: Path) -> origin.Origin:
  """Says by what a run is computed, and warns where it goes on otherwise."""
  made_by = origin.Origin(workdir, precision=str(built.net.dtype))
  results, of = workdir / outcomes.RESULTS, digest(built.config)
  if outcomes.read_results(results, of) or any(
    workdir.glob('seed_*/checkpoints/*')
  ):
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
      workdir / outcomes.RESULTS,
      digest(built.config),
      preemption.check,
    )


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
  done = outcomes.read_results(results, of)
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
