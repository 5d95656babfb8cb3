"""Boltzmann exploration, alone and debiased, on Pooling."""

from jaxnas.reproduce.item import Item, Request
from jaxnas.reproduce.jobs import Row
from jaxnas.reproduce.metrics import FOUND, RANKING

# True accuracy of the architecture that one search found (Roshtkhari et al.
# 2023).
PUBLISHED = 0.9042


def rows(request: Request) -> list[Row]:
  """Makes both rows."""
  found = {FOUND.key: PUBLISHED}
  return [
    Row(('Boltzmann',), 'pooling', 'boltzmann', published=found),
    Row(('Boltzmann, debiased',), 'pooling', 'boltzmann+debias'),
  ]


ITEM = Item(
  title='Boltzmann exploration, alone and debiased, on Pooling',
  columns=('strategy',),
  rows=rows,
  metrics=(*RANKING, FOUND),
)
