"""Finds the runs that items need, and checks that they can be done here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxnas import spaces, truth
from jaxnas.config import run_flags
from jaxnas.reproduce import items, store
from jaxnas.reproduce.item import Item, Request
from jaxnas.reproduce.jobs import Job, Row, Scale, job


def chosen(names: Sequence[str], scale: Scale) -> list[str]:
  """Returns the items of a scale, each once.

  Raises ValueError for one that is not known, or that the scale leaves out.
  """
  if 'all' in names:
    return [name for name in items.ITEMS if scale in items.get(name).scales]
  for name in names:
    scales = items.get(name).scales
    if scale not in scales:
      raise ValueError(
        f'{name} has no --scale {scale}: give --scale {" or ".join(scales)}.'
      )
  return [*dict.fromkeys(names)]


def jobs(
  item: Item,
  request: Request,
  seeds: int | None = None,
  where: Mapping[str, run_flags.Data] | None = None,
) -> list[tuple[Row, list[Job]]]:
  """Returns the rows, each with a job for every seed, or none without a run.

  Raises ValueError where a config does not load.
  """
  out = []
  for row in item.rows(request):
    count = 1 if item.figure else seeds or row.seeds
    of_row = [] if row.without else range(count)
    out.append(
      (row, [job(row, request.scale, seed, where=where) for seed in of_row])
    )
  return out


def only(needed: Sequence[Job], key: str) -> list[Job]:
  """Returns the run of this key alone. Raises ValueError where none has it."""
  found = [job for job in needed if job.key == key]
  if not found:
    raise ValueError(
      f'--only {key!r:.80} is no key of these runs: --dry_run lists them.'
    )
  return found


def check_flags(needed: Sequence[Job], given: run_flags.Data) -> None:
  """Raises ValueError for a flag of images that no run reads."""
  if any(job.config.data.name == 'imagenet' for job in needed):
    return
  for name in ('workers', 'on_error'):
    if getattr(given, name) is not None:
      raise ValueError(
        f'data.{name} is of data.name imagenet, which none of these items '
        'reads: leave it out.'
      )


def check(
  needed: Sequence[Job],
  results: Mapping[str, store.Result],
  files: Mapping[str, Path | None],
) -> None:
  """Raises ValueError or FileNotFoundError where a run lacks data or truth."""
  for one in needed:
    given = one.config
    if store.complete(one, dict(results)):
      continue
    if given.data.dir is None and given.data.name != 'digits':
      flag = 'imagenet' if given.data.name == 'imagenet' else 'dir'
      raise ValueError(f'images of {given.data.name}: give --data.{flag} DIR.')
    space, file = spaces.get(given.space), files.get(given.space)
    if file is not None or truth.shipped(space, given.data.name):
      truth.load(space, file, given.data.name)
    elif space.enumerable:
      raise ValueError(
        f'{space.name} needs its ground truth: give --truth.{space.name} FILE.'
      )


def command(name: str, request: Request, seeds: int | None) -> str:
  """Returns the command that makes an item from data in DIR."""
  words = ['python -m jaxnas.reproduce', name, '--scale', request.scale]
  if seeds is not None:
    words += ['--seeds', str(seeds)]
  if request.temperatures and items.get(name).sweeps_temperatures:
    words += ['--temperatures', *(f'{tau:g}' for tau in request.temperatures)]
  return ' '.join([*words, '--data.dir DIR --out DIR'])
