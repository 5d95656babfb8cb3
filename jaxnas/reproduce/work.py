"""Does the runs that are not finished, one after the other."""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxnas import truth
from jaxnas.config import digest, run_folder
from jaxnas.experiment import comparison, datasets, warm_up
from jaxnas.many.tasks import Task
from jaxnas.reproduce import arrays, store
from jaxnas.reproduce.jobs import Job, experiment_fields
from jaxnas.reproduce.parts import along_the_way, kept
from jaxnas.runtime import errors, files, kinds
from jaxnas.runtime.preemption import Preemption

# Files in a run's folder: the seconds that it took so far, and its parts.
SECONDS, PARTIAL = 'seconds.json', 'parts.json'

# Fields on which the time for an image depends, and those that make it a run's.
OF_SPEED = ('space', 'data.name')
OF_LENGTH = ('warmup_epochs', 'epochs', 'sampler.paths', 'data.batch_size')


def merged(jobs: Sequence[Job]) -> list[Job]:
  """Returns each run once, with the parts that any of its jobs has."""
  out: dict[str, Job] = {}
  for job in jobs:
    if job.key in out:
      both = (*out[job.key].parts, *job.parts)
      parts = {part.name: part for part in both}
      job = dataclasses.replace(out[job.key], parts=(*parts.values(),))
    out[job.key] = job
  return [*out.values()]


def tasks(jobs: Sequence[Job], out: Path) -> list[Task]:
  """Returns the jobs as tasks of processes of their own."""
  return [
    # It may be there, and lack a part that an item measures.
    Task(job.key, (out / 'runs' / job.folder).absolute(), None)
    for job in jobs
  ]


def do(
  jobs: Sequence[Job],
  folder: Path,
  results: dict[str, store.Result],
  keep: Callable[[store.Result, arrays.Arrays], store.Result],
  tables: dict[str, Path | None],
  preemption: Preemption,
) -> list[str]:
  """Does the jobs that are not complete; returns a line for each that failed.

  Args:
    jobs: jobs from `merged`.
    folder: the folder for the folders of the runs.
    results: results by key; new ones are added.
    keep: writes each result and its arrays as soon as its run is finished, and
      returns the result as it is read again.
    tables: files of ground truth by space.
    preemption: an active preemption; a signal ends the work by Stopped, and
      the same call goes on with it.
  """
  failed, loaded = [], {}
  for number, job in enumerate(jobs, 1):
    if store.complete(job, results):
      continue
    print(f'run {number} of {len(jobs)}: {", ".join(job.row.names)}, {job.key}')
    run = folder / job.folder
    start = time.monotonic()
    try:
      error = _train(
        kept(job), run, folder, tables, loaded, results, preemption
      )
      parts = {} if error else _measure(job, run, results, preemption)
    finally:
      wall_s = _took(run, time.monotonic() - start)
    if error:
      failed.append(f'{", ".join(job.row.names)} ({run}): {error}')
      continue
    result = store.collect(job, run, parts, wall_s)
    results[job.key] = keep(result, arrays.of_run(job.config, run))
  return failed


def _train(
  job: Job,
  run: Path,
  folder: Path,
  tables: dict[str, Path | None],
  loaded: dict[str, Any],
  results: dict[str, store.Result],
  preemption: Preemption,
) -> str | None:
  """Trains and ranks a run, or goes on with it; returns the error, if any."""
  config = job.config
  try:
    if comparison.result_of(run, config) is not None:
      return None
  except errors.Damaged as error:
    return str(error)
  images = json.dumps(config.data.__dict__, sort_keys=True)
  try:
    if images not in loaded:
      loaded.clear()
      found = datasets.load(config.data)
      store.check_images(found, config.data, results)
      loaded[images] = found
    space = datasets.space(config.space, loaded[images])
    table = truth.find(space, config.data.name, tables.get(config.space), run)
  except (ValueError, FileNotFoundError) as error:
    return str(error)
  result = comparison.attempt(
    config,
    run,
    table,
    loaded[images],
    preemption,
    warmup_from=[warmed_up(job, folder) or run],
    group=folder,
  )
  return result.get('error')


def warmed_up(job: Job, folder: Path) -> Path | None:
  """Finds a finished run whose warm-up this one can take over.

  A run that has the density which this one needs goes first.
  """
  # A run whose checkpoints are measured needs those of the warm-up too.
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
      and run_folder.read_config(run).density == job.config.density
    ),
    default=None,
  )


def _measure(
  job: Job,
  run: Path,
  results: dict[str, store.Result],
  preemption: Preemption,
) -> dict[str, Any]:
  """Returns all parts of a run; those that are missing are measured."""
  file = run / PARTIAL
  parts = dict(results.get(job.key, {}).get('parts', {}))
  if file.exists():
    parts |= files.read_result(file, {}, {'config': digest(job.config)})
  for part in job.parts:
    if part.name not in parts:
      parts[part.name] = part.measure(job.config, run, preemption)
      files.write_result(file, parts, {'config': digest(job.config)})
  return parts


def _took(run: Path, more_s: float) -> float:
  """Adds to the seconds that a run took so far, and returns their sum."""
  if not run.is_dir():
    return more_s
  file, before_s = run / SECONDS, 0.0
  if file.exists():
    before_s = files.read_json(file, {'wall_s': kinds.NUMBER})['wall_s']
  files.write_json(file, {'wall_s': before_s + more_s})
  return before_s + more_s


def hours(job: Job, results: dict[str, store.Result]) -> float | None:
  """Estimates the hours of a run by finished runs of its space and data.

  Where some have its length and batches it takes their mean, else the mean
  seconds that the others took for an image and an architecture, what follows
  their training included. Returns None where there is none.
  """
  ours = experiment_fields(job.config)
  near = [
    result
    for result in results.values()
    if all(result['config'].get(name) == ours[name] for name in OF_SPEED)
  ]
  alike = [
    result
    for result in near
    if all(result['config'].get(name) == ours[name] for name in OF_LENGTH)
  ]
  if alike:
    return statistics.fmean([result['wall_s'] for result in alike]) / 3600
  if near:
    each = [result['wall_s'] / _passes(result['config']) for result in near]
    return statistics.fmean(each) * _passes(ours) / 3600
  return None


def _passes(fields: Mapping[str, Any]) -> int:
  """Returns how often a run trains on each image, once an architecture."""
  epochs = fields['warmup_epochs'] + fields['epochs']
  per_path = fields.get('sampler.budget', 'steps') == 'paths'
  return epochs * (1 if per_path else fields.get('sampler.paths', 1))
