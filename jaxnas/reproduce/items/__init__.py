"""The tables and figures that can be made, by name.

A new item is a file that defines an `Item`, and a line here. Code outside of
the package adds its own with `ITEMS.add('mine', 'their_module:ITEM')`.
"""

from jaxnas.config.registry import Registry
from jaxnas.reproduce.item import Item

ITEMS = Registry(
  'item',
  {
    'table3': 'jaxnas.reproduce.items.table3:ITEM',
    'table4': 'jaxnas.reproduce.items.table4:ITEM',
    'table5': 'jaxnas.reproduce.items.table5:ITEM',
    'table6': 'jaxnas.reproduce.items.table6:ITEM',
    'figure1': 'jaxnas.reproduce.items.figure1:ITEM',
    'figure2': 'jaxnas.reproduce.items.figure2:ITEM',
    'length': 'jaxnas.reproduce.items.length:ITEM',
    'averages': 'jaxnas.reproduce.items.averages:ITEM',
    'beyond': 'jaxnas.reproduce.items.beyond:ITEM',
    'gate': 'jaxnas.reproduce.items.gate:ITEM',
    'bse': 'jaxnas.reproduce.items.boltzmann:ITEM',
    'table_nb201': 'jaxnas.reproduce.items.nas_bench_201:ITEM',
    'table_imagenet': 'jaxnas.reproduce.items.imagenet:ITEM',
    'table_samplers': 'jaxnas.reproduce.items.samplers:ITEM',
    'table_measures': 'jaxnas.reproduce.items.measures:ITEM',
  },
)


def get(name: str) -> Item:
  """Imports an item.

  Raises ValueError, with the nearest name, where there is none such.
  """
  item = ITEMS.get(name)
  assert isinstance(item, Item), f'{name} is no Item'
  return item
