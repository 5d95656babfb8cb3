"""Prints the densities of a trained supernet side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxnas import density, spaces
from jaxnas.experiment import updates
from jaxnas.report import text
from jaxnas.runtime import table, words
from jaxnas.truth import correlation

# Architectures shown at either end.
SHOWN = 5


def show(
  space: spaces.Space,
  estimator: str,
  measured: Mapping[str, density.Density],
) -> None:
  """Prints the range of each measure, and the architectures at both ends."""
  counts = {len(estimated.alpha_A) for estimated in measured.values()}
  out = table.table(
    f'density of {words.counted(max(counts), "architecture")}, {estimator}',
    ['measure', 'rank', 'architecture', 'density'],
    words=['architecture'],
  )
  for name, (archs_AxE, alpha_A, _) in measured.items():
    notes = [
      name,
      f'{text.aligned(alpha_A.min())} to {text.aligned(alpha_A.max())}',
    ]
    order_A = np.argsort(-alpha_A, kind='stable')
    ranks = range(len(order_A))
    for rank in sorted({*ranks[:SHOWN], *ranks[-SHOWN:]}):
      a = order_A[rank]
      out.add_row(
        notes.pop(0) if notes else '',
        str(rank + 1),
        space.format(archs_AxE[a]),
        text.aligned(float(alpha_A[a]), 6),
      )
      if rank + 1 == SHOWN < len(order_A) - SHOWN:
        out.add_row('', '...')
    out.add_section()
  table.show(out)


def show_updates(name: str, rows: Sequence[updates.Updates]) -> None:
  """Prints how even the effective updates are under each rule.

  The smallest is set beside the length of the mean update too: a step along
  that mean serves the architecture which is worst off by their quotient.
  """
  out = table.table(
    f'effective updates by {name}: mean similarity to what is drawn',
    [
      'rule',
      'fraction',
      'smallest',
      'largest',
      'spread',
      'smallest / length',
    ],
  )
  for rule, fraction, p_A, update_A in rows:
    length = np.sqrt(max(p_A @ update_A, 0))
    out.add_row(
      rule.replace('_', '-'),
      f'{fraction:.2g}',
      f'{update_A.min():.4f}',
      f'{update_A.max():.4f}',
      f'{update_A.std():.4f}',
      f'{update_A.min() / length:.4f}' if length else '-',
    )
  out.caption = (
    'Even updates train all architectures alike: the smallest is large, the '
    'spread small. "eq8" and "self-consistent" are rules of debiasing that '
    'leave a fraction of the architectures effective.'
  )
  table.show(out)


def show_agreement(alphas: Mapping[str, Float[np.ndarray, ' A']]) -> None:
  """Prints how alike densities order architectures, if there are two."""
  if len(alphas) < 2:
    return
  out = table.table(
    'Spearman correlation between densities',
    ['', 'density', *(str(number + 1) for number in range(len(alphas)))],
    words=['density'],
  )
  for number, (name, alpha_A) in enumerate(alphas.items(), 1):
    rhos = (
      correlation.spearman(alpha_A, other_A) for other_A in alphas.values()
    )
    out.add_row(
      str(number),
      name.replace('-', ' '),
      *map(text.number, rhos),
    )
  table.show(out)
