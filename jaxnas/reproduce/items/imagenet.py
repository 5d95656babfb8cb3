"""ImageNet: supernets of 13^21 architectures, searched, and trained alone."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from jaxnas.config import Config, digest, run_files, run_folder
from jaxnas.config.search import Search
from jaxnas.experiment import build, outcomes, retraining, search
from jaxnas.reproduce.item import Item, Request
from jaxnas.reproduce.jobs import Part, Row
from jaxnas.reproduce.metrics import Metric
from jaxnas.reproduce.store import Result
from jaxnas.runtime import files
from jaxnas.runtime.preemption import Preemption
from jaxnas.searchers import Limits

# Top-1 under other limits than here: PA&DA 399M multiply-adds, FairNAS-C 325M,
# SPOS 328M.
PUBLISHED = {'uniform': 0.762, 'fair': 0.767, 'importance:path': 0.773}

# Multiply-adds that an architecture may have.
MAX_MACS = 330_000_000

# The search, as long as that of SPOS.
SEARCH = Search()

STRATEGIES = (
  ('uniform', 'uniform', 'evolution'),
  ('debiased', 'uniform+debias', 'evolution'),
  ('fair', 'fair', 'evolution'),
  ('importance', 'importance:path', 'evolution'),
  ('EA with shift', 'uniform', 'shifting'),
)


def rows(request: Request) -> list[Row]:
  """Makes a row for each strategy with its search."""
  return [
    Row(
      (name,),
      'mobilenet',
      sampler,
      # Uniform and debiased share a warm-up, and so what it clusters.
      {}
      if sampler.startswith('uniform')
      else {'density.estimator': 'inverse_mean_distance'},
      {RETRAINED.key: PUBLISHED[sampler]}
      if sampler in PUBLISHED and searcher == 'evolution'
      else {},
      parts=(
        Part(searcher, functools.partial(found_by, searcher)),
        Part(f'retrain_{searcher}', functools.partial(retrained, searcher)),
      ),
    )
    for name, sampler, searcher in STRATEGIES
  ]


def found_by(
  searcher: str, config: Config, run: Path, preemption: Preemption
) -> dict[str, Any]:
  """Searches the supernet of a run for its best architecture within limits."""
  folder = run / searcher
  if not (folder / search.BEST).exists():
    config = run_folder.read_config(run).on_one_device()
    given = dataclasses.replace(SEARCH, searcher=searcher)
    limits = Limits(max_macs=MAX_MACS)
    ready = search.prepare(run, config, config.ranking, given, limits)
    # A search that a signal stopped goes on.
    run_folder.make_workdir(folder, 'search', run=run, overwrite=True)
    search.find(ready, given, run, folder, poll=preemption.check)
  found = best(folder, config)
  return {name: found[name] for name in ('arch', 'accuracy', 'macs', 'params')}


def best(folder: Path, config: Config) -> dict[str, Any]:
  """Reads what a search of the run with this config has found."""
  return files.read_result(
    folder / search.BEST, run_files.BEST, {'config': digest(config)}
  )


def retrained(
  searcher: str, config: Config, run: Path, preemption: Preemption
) -> dict[str, Any]:
  """Trains the architecture that a search of the run found, alone."""
  found = best(run / searcher, config)
  folder = run / f'retrain_{searcher}'
  if not (folder / outcomes.RESULT).exists():
    config = run_folder.read_config(run).on_one_device()
    built = build.stand_alone(config, found['arch'])
    run_folder.open_run(folder, config, resume=True, command='retrain', run=run)
    retraining.retrain(built, found['arch'], folder, preemption)
  result = files.read_result(
    folder / outcomes.RESULT, run_files.RESULT, {'config': digest(config)}
  )
  return {name: result[name] for name in ('arch', 'accuracy', 'seeds')}


def searched(result: Result, field: str, prefix: str = '') -> float | None:
  """Reads a number of the architecture that a search found."""
  for searcher in ('evolution', 'shifting'):
    if part := result['parts'].get(f'{prefix}{searcher}'):
      return float(part[field])
  return None


SEARCHED = Metric(
  'searched',
  'in the supernet',
  '{:.2%}',
  read=lambda result: searched(result, 'accuracy'),
)
MACS = Metric(
  'macs',
  'multiply-adds',
  '{:.4g}',
  read=lambda result: searched(result, 'macs'),
)
RETRAINED = Metric(
  'retrained',
  'alone',
  '{:.2%}',
  read=lambda result: searched(result, 'accuracy', 'retrain_'),
)

ITEM = Item(
  title='ImageNet: 13^21 architectures under 330M multiply-adds',
  columns=('strategy',),
  rows=rows,
  metrics=(SEARCHED, MACS, RETRAINED),
  scales=('paper',),
  note='Published: the original searches, under limits of their own.',
)
