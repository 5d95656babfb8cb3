"""Runs that are not done yet, one after the other."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnas import compare, runs, train, warm_up
from jaxnas.reproduce import store
from jaxnas.reproduce.jobs import Job, experiment_fields
from jaxnas.reproduce.parts import PARTS, along_the_way, kept

if TYPE_CHECKING:
  from jaxnas.training.preemption import Preemption

# In a run's folder: what it took so far, and its parts.
SECONDS, PARTIAL = 'seconds.json', 'parts.json'


def merged(jobs: Sequence[Job]) -> list[Job]:
  """Each run once, with the parts that any job wants of it."""
  out: dict[str, Job] = {}
  for job in jobs:
    if job.key in out:
      parts = dict.fromkeys((*out[job.key].parts, *job.parts))
      job = dataclasses.replace(out[job.key], parts=tuple(parts))
    out[job.key] = job
  return [*out.values()]


def do(
  jobs: Sequence[Job],
  folder: Path,
  results: dict[str, store.Result],
  keep: Callable[[store.Result], None],
  tables: dict[str, Path | None],
  preemption: 'Preemption',
) -> list[str]:
  """Does what is not complete, and returns what went wrong, a line a run.

  Args:
    jobs: from `merged`.
    folder: for the folders of the runs.
    results: by key; grows.
    keep: receives a result as soon as it is there.
    tables: ground truth by space.
    preemption: an active one; signals end it by Stopped, and the same call
      goes on.
  """
  failed, loaded = [], {}
  for number, job in enumerate(jobs, 1):
    if store.complete(job, results):
      continue
    print(f'run {number} of {len(jobs)}: {", ".join(job.row.names)}, {job.key}')
    run = folder / job.folder
    start = time.monotonic()
    try:
      error = _train(kept(job), run, folder, tables, loaded, preemption)
      parts = {} if error else _measure(job, run, results, preemption)
    finally:
      wall_s = _took(run, time.monotonic() - start)
    if error:
      failed.append(f'{", ".join(job.row.names)} ({run}): {error}')
      continue
    results[job.key] = store.collect(job, run, parts, wall_s)
    keep(results[job.key])
  return failed


def _train(
  job: Job,
  run: Path,
  folder: Path,
  tables: dict[str, Path | None],
  loaded: dict[str, Any],
  preemption: 'Preemption',
) -> str | None:
  """Trains and ranks, or goes on with it; what ended it, if it failed."""
  from jaxnas import data_config

  if (run / 'correlation.json').exists():
    return None
  config = job.config
  images = json.dumps(config.data.__dict__, sort_keys=True)
  try:
    if images not in loaded:
      loaded.clear()
      loaded[images] = data_config.images(config)
    table = train.find_table(config, run, tables.get(config.space))
  except (ValueError, FileNotFoundError) as error:
    return str(error)
  result = compare.attempt(
    config,
    run,
    table,
    loaded[images],
    preemption,
    warmup_from=warmed_up(job, folder) or run,
  )
  return result.get('error')


def warmed_up(job: Job, folder: Path) -> Path | None:
  """A finished run whose warm-up this one can take over.

  One with the density that this one needs, where there is one.
  """
  # Where checkpoints are looked at, those of the warm-up are needed too.
  if not job.config.warmup_epochs or along_the_way(job):
    return None
  alike = [
    done.parent
    for done in sorted(folder.glob('*/correlation.json'))
    if warm_up.same(done.parent, job.config, 0) is not None
  ]
  return max(
    alike,
    key=lambda run: (
      (run / 'density.npz').exists()
      and runs.read_config(run).density == job.config.density
    ),
    default=None,
  )


def _measure(
  job: Job,
  run: Path,
  results: dict[str, store.Result],
  preemption: 'Preemption',
) -> dict[str, Any]:
  """Parts that are there already, and those that are missing."""
  file = run / PARTIAL
  parts = dict(results.get(job.key, {}).get('parts', {}))
  if file.exists():
    parts |= json.loads(file.read_text('utf-8'))
  for name in job.parts:
    if name not in parts:
      parts[name] = PARTS[name](job, run, preemption)
      runs.write_json(file, parts)
  return parts


def _took(run: Path, more_s: float) -> float:
  """Seconds of all attempts."""
  if not run.is_dir():
    return more_s
  file, before_s = run / SECONDS, 0.0
  if file.exists():
    before_s = json.loads(file.read_text('utf-8'))['wall_s']
  runs.write_json(file, {'wall_s': before_s + more_s})
  return before_s + more_s


def hours(job: Job, results: dict[str, store.Result]) -> float | None:
  """What a run takes, by the mean of finished ones like it; None: unknown.

  Like it are those of the same space, data and length.
  """
  same = ('space', 'data.name', 'warmup_epochs', 'epochs', 'data.batch_size')
  ours = experiment_fields(job.config)
  took = [
    result['wall_s'] / 3600
    for result in results.values()
    if all(result['config'].get(name) == ours[name] for name in same)
  ]
  return sum(took) / len(took) if took else None
