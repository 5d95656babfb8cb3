"""Table 4: estimators of the density, on Pooling.

The published numbers are those of Roshtkhari, Toews and Pedersoli, "Debiased
One-Shot NAS via Density-Aware Sampling", CVPR Findings 2026.
"""

from jaxnas.reproduce.item import Item, Request
from jaxnas.reproduce.jobs import Row
from jaxnas.reproduce.metrics import DENSITY, RANKING

# The estimator that a listed space has where the config names none.
DEFAULT = 'inverse_mean_distance'

# Published numbers by estimator.
PUBLISHED = {
  DEFAULT: {'kendall': 0.34},
  'kde': {'kendall': 0.32},
}


def rows(request: Request) -> list[Row]:
  """Makes a row for each estimator."""
  return [
    Row(
      (name.replace('_', ' '),),
      'pooling',
      'uniform+debias',
      # Named, it would make another run of the same experiment.
      {} if name == DEFAULT else {'density.estimator': name},
      found,
    )
    for name, found in PUBLISHED.items()
  ]


ITEM = Item(
  title='Table 4: estimators of the density, on Pooling',
  columns=('estimator',),
  rows=rows,
  metrics=(*RANKING, DENSITY),
)
