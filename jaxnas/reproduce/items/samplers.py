"""Sampling strategies side by side, each also debiased, on Pooling."""

from jaxnas.reproduce.item import Item, Request
from jaxnas.reproduce.jobs import Row
from jaxnas.reproduce.metrics import FOUND, RANKING

# True accuracy of the architecture found, an average (Roshtkhari et al. 2025).
PUBLISHED = {
  'uniform': 0.9040,
  'boltzmann': 0.9051,
  'tree': 0.9057,
  'tree:prioritized': 0.9142,
  'tree:iterative': 0.9181,
}

# At `--scale cpu` only these, as one run takes about as long as another.
STRATEGIES = {
  'cpu': ('uniform', 'boltzmann'),
  'paper': (
    'uniform',
    'boltzmann',
    'novelty',
    'tree',
    'tree:prioritized',
    'tree:iterative',
    'tree:hierarchical',
    'mixture',
  ),
}


def rows(request: Request) -> list[Row]:
  """Makes two rows for each strategy."""
  out = []
  for name in STRATEGIES[request.scale]:
    found = PUBLISHED.get(name)
    known = {} if found is None else {FOUND.key: found}
    out += [
      Row((name, ''), 'pooling', name, published=known),
      Row((name, 'debiased'), 'pooling', f'{name}+debias'),
    ]
  return out


ITEM = Item(
  title='Strategies side by side, on Pooling',
  columns=('strategy', ''),
  rows=rows,
  metrics=(*RANKING, FOUND),
  note='All train on as many path-gradients.',
)
