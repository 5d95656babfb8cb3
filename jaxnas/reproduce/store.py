"""Finished runs as small files, kept with the code: a file a run.

A result holds what tables and figures need of a run, its config, its machine
and its versions, so that nothing is trained twice and tables grow run by run.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas import correlation, runs, spaces, tables
from jaxnas.config import Config
from jaxnas.reproduce.jobs import Job, command, experiment_fields

# More predictions than these are not kept.
MOST_KEPT = 10_000

Result = dict[str, Any]


def read(folders: Iterable[Path]) -> dict[str, Result]:
  """Results by key; those of earlier folders go before later ones.

  Raises ValueError naming a file that holds no result.
  """
  out: dict[str, Result] = {}
  for folder in folders:
    for file in sorted(folder.glob('*.json')):
      try:
        result = json.loads(file.read_text('utf-8'))
        out.setdefault(result['key'], result)
      except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
          f'{file} holds no result ({error!r}): move it elsewhere.'
        ) from None
  return out


def write(result: Result, folder: Path) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  runs.write_json(folder / f'{result["space"]}-{result["key"]}.json', result)


def collect(
  job: Job, run: Path, parts: dict[str, Any], wall_s: float
) -> Result:
  """What a finished run has found.

  Args:
    job: what it was.
    run: its folder.
    parts: what was measured besides, by name.
    wall_s: that it took, over all attempts.
  """
  found = json.loads((run / 'correlation.json').read_text('utf-8'))
  environment = json.loads((run / 'environment.json').read_text('utf-8'))
  # Where files lay on that machine says nothing elsewhere.
  del environment['command']
  return {
    'key': job.key,
    'space': job.config.space,
    'config': experiment_fields(job.config),
    'command': command(job),
    'environment': environment,
    'wall_s': round(wall_s, 1),
    'found': found | _density(job.config, run),
    'hits': _hits(run, found['images']),
    'parts': parts,
  }


def complete(job: Job, results: dict[str, Result]) -> bool:
  """Whether nothing is left to do for it.

  A result of a config with other values, as where a default has changed, is
  none of it.
  """
  result, ours = results.get(job.key), experiment_fields(job.config)
  return (
    result is not None
    and all(
      ours.get(name, value) == value for name, value in result['config'].items()
    )
    and {*job.parts} <= result['parts'].keys()
  )


def value(result: Result, metric: str) -> float | None:
  """Of a result; None where it has no such number."""
  searched = {
    'searched': ('accuracy', 'evolution', 'shifting'),
    'macs': ('macs', 'evolution', 'shifting'),
    'retrained': ('accuracy', 'retrain_evolution', 'retrain_shifting'),
  }
  if metric not in searched:
    return result['found'].get(metric)
  field, *parts = searched[metric]
  for part in parts:
    if part in result['parts']:
      return result['parts'][part][field]
  return None


def _hits(run: Path, images: int) -> list[int] | None:
  """Images that each architecture ranked has right."""
  accuracy_A = runs.read_npz(run / 'predictions.npz')['accuracy_A']
  if len(accuracy_A) > MOST_KEPT:
    return None
  return np.rint(accuracy_A * images).astype(int).tolist()


def _density(config: Config, run: Path) -> dict[str, Any]:
  """Range of the densities that debiased it, how much, and how rightly.

  That is their Spearman with the truth: where it is above 0, what debiasing
  favours less is better. The temperature and the effective number are those of
  a uniform proposal; of others they depend on what was learnt by then.
  """
  file = run / 'density.npz'
  if not (config.debiases and file.exists()):
    return {}
  from jaxnas import debiasing, samplers

  kept = runs.read_npz(file)
  alpha_A = kept['alpha_A']
  out: dict[str, Any] = {
    'density': [float(alpha_A.min()), float(alpha_A.max())]
  }
  if (run / 'table.json').exists():
    space = spaces.get(config.space)
    table = tables.load(space, run / 'table.json', config.data.name)
    truth_A = table.accuracy(kept['archs_AxE'])
    out['density_truth'] = correlation.spearman(alpha_A, truth_A)
  if config.sampler.name == 'uniform' and config.density.refresh_epochs is None:
    alpha_A, _ = debiasing.scaled(config, alpha_A)
    uniform_A = np.full(len(alpha_A), -np.log(len(alpha_A)))
    tau = debiasing.temperature(config, uniform_A, alpha_A)
    out |= {
      'temperature': tau,
      'effective': samplers.effective_number(-(alpha_A - alpha_A.min()) / tau),
    }
  return out


def machine(result: Result) -> str:
  """Where it ran, in a few words."""
  where = result['environment']
  versions = where['versions']
  return (
    f'{where["cpus"]} CPUs, {where["precision"]}, jax {versions["jax"]}, '
    f'jaxnas {versions["jaxnas"]}'
  )
