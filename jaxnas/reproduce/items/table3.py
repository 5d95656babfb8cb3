"""Table 3: uniform against debiased training.

The published numbers are those of Roshtkhari, Toews and Pedersoli, "Debiased
One-Shot NAS via Density-Aware Sampling", CVPR Findings 2026.
"""

from jaxnas.reproduce.item import Item, Request
from jaxnas.reproduce.items.spaces import CONFIGS, TITLES
from jaxnas.reproduce.jobs import Row
from jaxnas.reproduce.metrics import DENSITY, RANKING

# Kendall and Spearman by space and training.
PUBLISHED = {
  ('pooling', 'uniform'): {'kendall': 0.16, 'spearman': 0.21},
  ('pooling', 'uniform+debias'): {'kendall': 0.34, 'spearman': 0.55},
  ('nas_bench_macro', 'uniform'): {'kendall': 0.72, 'spearman': 0.87},
  ('nas_bench_macro', 'uniform+debias'): {'kendall': 0.74, 'spearman': 0.91},
}
TRAINED = {'uniform': 'uniform', 'uniform+debias': 'debiased'}


def rows(request: Request) -> list[Row]:
  """Makes a row for each space and each training."""
  return [
    Row(
      (TITLES[space], TRAINED[sampler]),
      CONFIGS[space],
      sampler,
      published=found,
      seeds=3 if space == 'pooling' else 1,
    )
    for (space, sampler), found in PUBLISHED.items()
  ]


ITEM = Item(
  title='Table 3: uniform against debiased training',
  columns=('space', 'training'),
  rows=rows,
  metrics=(*RANKING, DENSITY),
)
