"""Measures of density: what the vectors are that densities compare."""

from jaxnas.reproduce.item import Item, Request
from jaxnas.reproduce.items.spaces import CONFIGS, TITLES
from jaxnas.reproduce.jobs import Row
from jaxnas.reproduce.metrics import DENSITY, RANKING

MEASURES = {
  'pooling': {
    name: {'density.measure': name}
    for name in ('gradient', 'representational', 'functional')
  },
  # The config's tensors are behind the last choice, these before the first.
  'nas_bench_macro': {
    'gradient': {},
    'gradient of the stem': {'density.tensors': 'early'},
  },
}


def rows(request: Request) -> list[Row]:
  """Makes a row for each measure of a space, and one without debiasing."""
  out = []
  for space, measures in MEASURES.items():
    title, name = TITLES[space], CONFIGS[space]
    out.append(Row((title, 'undebiased'), name, 'uniform'))
    out += [
      Row((title, measure), name, 'uniform+debias', fields)
      for measure, fields in measures.items()
    ]
  why = 'all architectures of Pooling are equally far from the others'
  return [
    *out,
    Row((TITLES['pooling'], 'encoding'), 'pooling', 'uniform', without=why),
  ]


ITEM = Item(
  title='What densities compare',
  columns=('space', 'measure'),
  rows=rows,
  metrics=(*RANKING, DENSITY),
)
