"""Table 5: temperatures, and effective fractions beside them.

The published numbers are those of Roshtkhari, Toews and Pedersoli, "Debiased
One-Shot NAS via Density-Aware Sampling", CVPR Findings 2026.
"""

from jaxnas.reproduce.item import Item, Request
from jaxnas.reproduce.items.spaces import CONFIGS, TITLES
from jaxnas.reproduce.jobs import Row
from jaxnas.reproduce.metrics import EFFECTIVE, RANKING

# NAS-Bench-Macro, by temperature.
PUBLISHED = {
  50.0: {'kendall': 0.72},
  7.0: {'kendall': 0.74},
  0.5: {'kendall': 0.67},
  0.1: {'kendall': 0.65},
}
# The table's temperatures and more; the paper's figure 5 sweeps Pooling.
TEMPERATURES = {
  'nas_bench_macro': (*PUBLISHED,),
  'pooling': (50.0, 7.0, 3.0, 1.0, 0.5, 0.1),
}
FRACTIONS = (0.9, 0.7, 0.5, 0.3, 0.1)


def rows(request: Request) -> list[Row]:
  """Makes a row for each temperature and each fraction of a space."""
  out = []
  for space, its_own in TEMPERATURES.items():
    temperatures = sorted({*its_own, *request.temperatures}, reverse=True)
    known = PUBLISHED if space == 'nas_bench_macro' else {}
    out.append(Row((TITLES[space], 'uniform'), CONFIGS[space], 'uniform'))
    out += [
      Row(
        (TITLES[space], f'temperature {tau:g}'),
        CONFIGS[space],
        'uniform+debias',
        {'debias.temperature': tau, 'debias.effective_fraction': None},
        known.get(tau, {}),
      )
      for tau in temperatures
    ]
    out += [
      Row(
        (TITLES[space], f'effective fraction {fraction:g}'),
        CONFIGS[space],
        'uniform+debias',
        {'debias.effective_fraction': fraction, 'debias.temperature': None},
      )
      for fraction in FRACTIONS
    ]
  return out


ITEM = Item(
  title='Table 5: temperatures',
  columns=('space', 'debiasing'),
  rows=rows,
  metrics=(*RANKING, EFFECTIVE),
  sweeps_temperatures=True,
)
