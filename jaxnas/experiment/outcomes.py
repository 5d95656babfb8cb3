"""The outcomes of architectures trained alone: rows, results and tables."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas import data, truth
from jaxnas.config import digest
from jaxnas.experiment import origin
from jaxnas.experiment.parts import StandAlone
from jaxnas.runtime import files, jsonl, kinds, words
from jaxnas.spaces import Space
from jaxnas.truth import correlation

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


def networks(
  space: Space, archs_AxE: Int[np.ndarray, 'A E']
) -> tuple[Int[np.ndarray, 'D E'], Int[np.ndarray, ' A']]:
  """Returns the networks to train, and each architecture's row among them.

  Of architectures that are the same network one is trained.
  """
  forms_AxE = space.canonical(archs_AxE)
  archs_DxE, form_A = np.unique(forms_AxE, axis=0, return_inverse=True)
  return archs_DxE, form_A.reshape(-1)


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
