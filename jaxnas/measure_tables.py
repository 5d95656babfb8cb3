"""Densities of a trained supernet side by side, as tables."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from jaxnas import correlation, spaces
from jaxnas.config import Config

if TYPE_CHECKING:
  from jaxnas import density

# Architectures shown at either end.
SHOWN = 5


def found(
  workdir: Path,
  run: Path,
  archs_AxE: Int[np.ndarray, 'A E'],
  like: Config,
  step: int,
) -> dict[str, Float[np.ndarray, ' A']]:
  """Densities of just these archs: those in the folder, and the run's own.

  One of another step or of other images is left out, and said so.
  """
  from jaxnas import density, density_config

  def seen(facts: Mapping[str, Any]) -> tuple[Any, ...]:
    fields = facts.get('density', {})
    return facts.get('step'), fields.get('batches'), fields.get('batch_size')

  out = {}
  for file in sorted(workdir.glob('density-*.npz')):
    try:
      (others_AxE, alpha_A), facts = density.read_file(file)
    except ValueError as error:
      print(f'left out: {error}')
      continue
    if seen(facts) != seen(density_config.facts(like, step)):
      print(f'left out: {file} is of another step or other images')
    elif np.array_equal(others_AxE, archs_AxE):
      out[file.stem.removeprefix('density-')] = alpha_A
  # That of the sampler: of other architectures, or none, where the run was not
  # debiased.
  with contextlib.suppress(ValueError, FileNotFoundError):
    (others_AxE, alpha_A), facts = density.read_file(run / 'density.npz')
    if np.array_equal(others_AxE, archs_AxE):
      out[f'run at step {facts.get("step", "?")}'] = alpha_A
  return out


def densities(
  space: spaces.Space,
  estimator: str,
  measured: 'Mapping[str, density.Density]',
) -> None:
  """Prints the range, and the architectures at both ends, by measure."""
  counts = {len(estimated.alpha_A) for estimated in measured.values()}
  out = RichTable(
    title=f'density of {max(counts)} architectures, {estimator}',
    box=box.SIMPLE_HEAD,
  )
  out.add_column('measure')
  out.add_column('rank', justify='right')
  # MobileNet's names are longer than a line.
  out.add_column('architecture', overflow='fold')
  out.add_column('density', justify='right')
  for name, (archs_AxE, alpha_A) in measured.items():
    notes = [name, f'{alpha_A.min():.4g} to {alpha_A.max():.4g}']
    order_A = np.argsort(-alpha_A, kind='stable')
    ranks = range(len(order_A))
    for rank in sorted({*ranks[:SHOWN], *ranks[-SHOWN:]}):
      a = order_A[rank]
      out.add_row(
        notes.pop(0) if notes else '',
        str(rank + 1),
        space.format(archs_AxE[a]),
        f'{alpha_A[a]:.6g}',
      )
      if rank + 1 == SHOWN < len(order_A) - SHOWN:
        out.add_row('', '...')
    out.add_section()
  Console().print(out)


def correlations(alphas: Mapping[str, Float[np.ndarray, ' A']]) -> None:
  """Prints how alike the densities order architectures, where two are."""
  if len(alphas) < 2:
    return
  out = RichTable(
    title='Spearman correlation between densities', box=box.SIMPLE_HEAD
  )
  out.add_column('')
  out.add_column('', overflow='fold')
  for number in range(1, len(alphas) + 1):
    out.add_column(str(number), justify='right')
  for number, (name, alpha_A) in enumerate(alphas.items(), 1):
    rhos = (
      correlation.spearman(alpha_A, other_A) for other_A in alphas.values()
    )
    out.add_row(
      str(number),
      name.replace('-', ' '),
      *('-' if rho is None else f'{rho:.3f}' for rho in rhos),
    )
  Console().print(out)
