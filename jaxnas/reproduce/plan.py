"""Which runs items need, and whether they can be done here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxnas import spaces, tables
from jaxnas.reproduce import store
from jaxnas.reproduce.items import ITEMS, Item
from jaxnas.reproduce.jobs import Job, Row, Scale, job


def chosen(names: Sequence[str], scale: Scale) -> list[str]:
  """The items of a scale, each once.

  Raises ValueError for one that the scale leaves out.
  """
  of_scale = [name for name, item in ITEMS.items() if scale in item.scales]
  wanted = of_scale if 'all' in names else [*dict.fromkeys(names)]
  for name in wanted:
    if name not in of_scale:
      raise ValueError(
        f'{name} is only of --scale {" and ".join(ITEMS[name].scales)}.'
      )
  return wanted


def jobs(
  item: Item,
  scale: Scale,
  seeds: int | None = None,
  where: Mapping[str, str | None] | None = None,
) -> list[tuple[Row, list[Job]]]:
  """By row, a job a seed; none where a row has no run.

  Raises ValueError where a config does not load.
  """
  out = []
  for row in item.rows(scale):
    count = 1 if item.figure else seeds or row.seeds
    of_row = [] if row.without else range(count)
    out.append((row, [job(row, scale, seed, where=where) for seed in of_row]))
  return out


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
    if file is not None or tables.shipped(space, given.data.name):
      tables.load(space, file, given.data.name)
    elif space.enumerable:
      raise ValueError(
        f'{space.name} needs its ground truth: give --truth.{space.name} FILE.'
      )


def command(
  name: str,
  scale: Scale,
  seeds: int | None,
  temperatures: Sequence[float] = (),
) -> str:
  """What makes an item, its data in DIR."""
  words = ['python -m jaxnas.reproduce', name, '--scale', scale]
  if seeds is not None:
    words += ['--seeds', str(seeds)]
  if temperatures and name == 'table5':
    words += ['--temperatures', *(f'{tau:g}' for tau in temperatures)]
  return ' '.join([*words, '--data.dir DIR --out DIR'])
