"""Keeps finished runs as small files with the code, two for each run.

A result holds the numbers that tables and figures need, and the config, images,
machine and versions of the run, so that nothing is trained twice and tables
grow run by run. Beside its json lie its arrays, an npz of the same name.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas import spaces, truth
from jaxnas.config import Config, Data, digest, run_files
from jaxnas.data import DataSet, fingerprint
from jaxnas.experiment import contents, updates
from jaxnas.reproduce import arrays
from jaxnas.reproduce.jobs import Job, command, experiment_fields
from jaxnas.runtime import files
from jaxnas.runtime.kinds import NUMBER
from jaxnas.truth import correlation

Result = dict[str, Any]

# The keys that a result must have.
KIND = {
  'key': str,
  'space': str,
  'config': dict,
  'images': dict,
  'command': str,
  'environment': dict,
  'wall_s': NUMBER,
  'found': dict,
  'hits': ([int], type(None)),
  'parts': dict,
}

# Where the arrays of a result are; it is not written.
NPZ = 'npz'


def read(folders: Iterable[Path]) -> dict[str, Result]:
  """Reads results by key; earlier folders go before later ones.

  Raises ValueError naming a file that holds no result.
  """
  out: dict[str, Result] = {}
  for folder in folders:
    for file in sorted(folder.glob('*.json')):
      try:
        result = files.read_json(file, KIND)
        out.setdefault(result['key'], result | {NPZ: file.with_suffix('.npz')})
      except ValueError as error:
        raise ValueError(
          f'{file} holds no result ({error}): move it elsewhere.'
        ) from None
  return out


def write(result: Result, of_run: arrays.Arrays, folder: Path) -> Result:
  """Writes a result and its arrays to a folder, made where it is missing.

  Returns the result that says where its arrays are.
  """
  folder.mkdir(parents=True, exist_ok=True)
  file = folder / f'{result["space"]}-{result["key"]}.json'
  written = {name: value for name, value in result.items() if name != NPZ}
  npz = file.with_suffix('.npz')
  files.write_npz(npz, of_run)
  files.write_json(file, written)
  return written | {NPZ: npz}


def read_arrays(result: Result) -> arrays.Arrays:
  """Reads the arrays of a result, as `arrays.of_run` lists them.

  Raises ValueError where they are not there.
  """
  npz = result[NPZ]
  if not npz.exists():
    raise ValueError(
      f'{npz} is not there, the arrays of run {result["key"]}: take its .json '
      f'away, and this makes both anew: {result["command"]}'
    )
  return files.read_npz(npz)


def collect(
  job: Job, run: Path, parts: dict[str, Any], wall_s: float
) -> Result:
  """Returns the result of a finished run.

  Args:
    job: the job that it did.
    run: its folder.
    parts: other measurements of it, by name.
    wall_s: seconds that it took, over all attempts.
  """
  found = files.read_result(
    run / 'correlation.json',
    run_files.CORRELATION,
    {'config': digest(job.config)},
  )
  environment = files.read_json(run / 'environment.json', run_files.ENVIRONMENT)
  # Paths of that machine mean nothing elsewhere.
  del environment['command']
  return {
    'key': job.key,
    'space': job.config.space,
    'config': experiment_fields(job.config),
    'images': contents.kept(run),
    'command': command(job),
    'environment': environment,
    'wall_s': round(wall_s, 1),
    'found': found | _density(job.config, run),
    'hits': _hits(job.config, run, found['images']),
    'parts': parts,
  }


def complete(job: Job, results: dict[str, Result]) -> bool:
  """Returns True if nothing is left to do for a job.

  A result with other values of the config does not count, as where a default
  has changed since.
  """
  result, ours = results.get(job.key), experiment_fields(job.config)
  return (
    result is not None
    and all(
      ours.get(name, value) == value for name, value in result['config'].items()
    )
    and {part.name for part in job.parts} <= result['parts'].keys()
  )


def check_images(
  loaded: DataSet, given: Data, results: Mapping[str, Result]
) -> None:
  """Raises ValueError where results of a data set were made of other images.

  Args:
    loaded: images that more runs will be made of.
    given: the data set that they are by its description.
    results: finished ones, by key.
  """
  ours = fingerprint.of(loaded)
  for result in results.values():
    theirs = result['config']
    if any(
      theirs.get(f'data.{name}') != getattr(given, name)
      for name in ('name', 'size', 'options')
    ):
      continue
    if differs := fingerprint.difference(ours, result['images']):
      raise ValueError(
        f'{result[NPZ].with_suffix(".json")} was made of other images of '
        f'{given.name} than these: {differs}; give their --data.dir, or '
        'another --results and --out.'
      )


def _hits(config: Config, run: Path, images: int) -> list[int] | None:
  """Returns how many images each ranked architecture has right."""
  predicted, _ = files.read_arrays(
    run / 'predictions.npz',
    run_files.PREDICTIONS,
    {'config': digest(config)},
  )
  accuracy_A = predicted['accuracy_A']
  if len(accuracy_A) > arrays.MOST_KEPT:
    return None
  return np.rint(accuracy_A * images).astype(int).tolist()


def _density(config: Config, run: Path) -> dict[str, Any]:
  """Returns the range of a run's densities, their strength and their use.

  Their use is their Spearman with the truth: where it is above 0, what
  debiasing favours less is better. The temperature and the effective number are
  those of a uniform proposal; for others they depend on what was learnt.
  """
  file = run / 'density.npz'
  if not (config.debiases and file.exists()):
    return {}
  kept, _ = files.read_arrays(
    file, run_files.DENSITY, {'config': digest(config)}
  )
  alpha_A = kept['alpha_A']
  out: dict[str, Any] = {
    'density': [float(alpha_A.min()), float(alpha_A.max())]
  }
  if (run / 'table.json').exists():
    space = spaces.get(config.space)
    table = truth.load(space, run / 'table.json', config.data.name)
    truth_A = table.known(kept['archs_AxE'])
    known_A = np.isfinite(truth_A)
    out['density_truth'] = correlation.spearman(
      alpha_A[known_A], truth_A[known_A]
    )
  if config.sampler.name == 'uniform' and config.density.refresh_epochs is None:
    drawn = None
    if (run / updates.FILE).exists():
      drawn, _ = files.read_arrays(
        run / updates.FILE, run_files.UPDATES, {'config': digest(config)}
      )
    if (found := updates.applied(config, alpha_A, drawn)) is not None:
      p_A, tau = found
      out |= {
        'temperature': tau,
        'effective': float(1 / np.square(p_A).sum()),
      }
  return out


def machine(result: Result) -> str:
  """Says on which machine and versions a run was made."""
  where = result['environment']
  versions = where['versions']
  return (
    f'{where["cpus"]} CPUs, {where["precision"]}, jax {versions["jax"]}, '
    f'jaxnas {versions["jaxnas"]}'
  )
