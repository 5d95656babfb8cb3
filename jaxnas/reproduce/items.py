"""What is published, item by item: the runs that each one needs."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from jaxnas.reproduce import published
from jaxnas.reproduce.jobs import Row, Scale

RANKING = ('kendall', 'spearman', 'top_kendall')
FOUND = ('best_arch_true_accuracy',)
DENSITY = ('density_truth',)

# Of the paper and around it; the paper's own figure 5 sweeps Pooling.
TEMPERATURES = {
  'nas_bench_macro': (50.0, 7.0, 0.5, 0.1),
  'pooling': (50.0, 7.0, 3.0, 1.0, 0.5, 0.1),
}
FRACTIONS = (0.9, 0.7, 0.5, 0.3, 0.1)
CONFIGS = {'pooling': 'pooling', 'nas_bench_macro': 'macro'}
TITLES = {'pooling': 'Pooling', 'nas_bench_macro': 'NAS-Bench-Macro'}
TRAINED = {'uniform': 'uniform', 'uniform+debias': 'debiased'}

# At `--scale cpu` four strategies; one takes about as long as the other.
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


@dataclasses.dataclass(frozen=True)
class Item:
  """A table or a figure."""

  title: str
  columns: tuple[str, ...]
  """Heads of a row's names."""
  rows: Callable[[Scale], list[Row]]
  metrics: tuple[str, ...] = RANKING
  """Keys of what a run has found."""
  scales: tuple[Scale, ...] = ('cpu', 'paper')
  note: str = ''
  figure: bool = False
  """Seeds beyond the first show nothing more."""


def table3(scale: Scale) -> list[Row]:
  return [
    Row(
      (TITLES[space], TRAINED[sampler]),
      CONFIGS[space],
      sampler,
      published=found,
      seeds=3 if space == 'pooling' else 1,
    )
    for (space, sampler), found in published.TABLE_3.items()
  ]


def table4(scale: Scale) -> list[Row]:
  return [
    Row(
      (name.replace('_', ' '),),
      'pooling',
      'uniform+debias',
      {'density.estimator': name},
      found,
    )
    for name, found in published.TABLE_4.items()
  ]


def table5(scale: Scale, more: Sequence[float] = ()) -> list[Row]:
  rows = []
  for space, its_own in TEMPERATURES.items():
    temperatures = sorted({*its_own, *more}, reverse=True)
    known = published.TABLE_5 if space == 'nas_bench_macro' else {}
    rows.append(Row((TITLES[space], 'uniform'), CONFIGS[space], 'uniform'))
    rows += [
      Row(
        (TITLES[space], f'temperature {tau:g}'),
        CONFIGS[space],
        'uniform+debias',
        {'debias.temperature': tau, 'debias.effective_fraction': None},
        known.get(tau, {}),
      )
      for tau in temperatures
    ]
    rows += [
      Row(
        (TITLES[space], f'effective fraction {fraction:g}'),
        CONFIGS[space],
        'uniform+debias',
        {'debias.effective_fraction': fraction, 'debias.temperature': None},
      )
      for fraction in FRACTIONS
    ]
  return rows


def pooling_alone(part: str) -> Callable[[Scale], list[Row]]:
  """Uniform training of Pooling, looked at along the way."""
  return lambda scale: [
    Row(('Pooling', 'uniform'), 'pooling', 'uniform', parts=(part,))
  ]


def bse(scale: Scale) -> list[Row]:
  found = {'best_arch_true_accuracy': published.FOUND['boltzmann']}
  return [
    Row(('Boltzmann',), 'pooling', 'boltzmann', published=found),
    Row(('Boltzmann, debiased',), 'pooling', 'boltzmann+debias'),
  ]


def table_nb201(scale: Scale) -> list[Row]:
  return [
    Row(
      (sampler.replace('+debias', ', debiased'),),
      'nas_bench_201',
      sampler,
      published=published.NAS_BENCH_201.get(sampler, {}),
    )
    for name in ('uniform', 'importance')
    for sampler in (name, f'{name}+debias')
  ]


def table_imagenet(scale: Scale) -> list[Row]:
  strategies = (
    ('uniform', 'uniform', 'evolution'),
    ('debiased', 'uniform+debias', 'evolution'),
    ('fair', 'fair', 'evolution'),
    ('importance', 'importance:path', 'evolution'),
    ('EA with shift', 'uniform', 'shifting'),
  )
  return [
    Row(
      (name,),
      'mobilenet',
      sampler,
      # Uniform and debiased share a warm-up, and so what it clusters.
      {}
      if sampler.startswith('uniform')
      else {'density.estimator': 'inverse_mean_distance'},
      {'retrained': published.IMAGENET[sampler]}
      if sampler in published.IMAGENET and searcher == 'evolution'
      else {},
      parts=(searcher, f'retrain_{searcher}'),
    )
    for name, sampler, searcher in strategies
  ]


def table_samplers(scale: Scale) -> list[Row]:
  rows = []
  for name in STRATEGIES[scale]:
    found = published.FOUND_ON_AVERAGE.get(name)
    known = {} if found is None else {'best_arch_true_accuracy': found}
    rows += [
      Row((name, ''), 'pooling', name, published=known),
      Row((name, 'debiased'), 'pooling', f'{name}+debias'),
    ]
  return rows


def table_measures(scale: Scale) -> list[Row]:
  compared = {
    'pooling': {
      name: {'density.measure': name}
      for name in ('gradient', 'representational', 'functional')
    },
    # Its own tensors stand behind the last choice, these before the first.
    'nas_bench_macro': {
      'gradient': {},
      'gradient of the stem': {'density.tensors': 'early'},
    },
  }
  rows = []
  for space, measures in compared.items():
    title, name = TITLES[space], CONFIGS[space]
    rows.append(Row((title, 'undebiased'), name, 'uniform'))
    rows += [
      Row((title, measure), name, 'uniform+debias', fields)
      for measure, fields in measures.items()
    ]
  why = 'all architectures of Pooling are equally far from the others'
  return [
    *rows,
    Row((TITLES['pooling'], 'encoding'), 'pooling', 'uniform', without=why),
  ]


ITEMS: dict[str, Item] = {
  'table3': Item(
    'Table 3: uniform against debiased training',
    ('space', 'training'),
    table3,
    (*RANKING, *DENSITY),
  ),
  'table4': Item(
    'Table 4: estimators of the density, on Pooling',
    ('estimator',),
    table4,
    (*RANKING, *DENSITY),
  ),
  'table5': Item(
    'Table 5: temperatures',
    ('space', 'debiasing'),
    table5,
    (*RANKING, 'effective'),
  ),
  'table6': Item(
    'Table 6: densities along uniform training, against the last ones',
    ('space', 'training'),
    pooling_alone('densities'),
    figure=True,
  ),
  'figure1': Item(
    'Figure 1: rank in the supernet against rank alone',
    ('space', 'training'),
    table3,
    figure=True,
  ),
  'figure2': Item(
    'Figure 2: gradient distance by layer, along training',
    ('space', 'training'),
    pooling_alone('distances'),
    figure=True,
  ),
  'bse': Item(
    'Boltzmann exploration, alone and debiased, on Pooling',
    ('strategy',),
    bse,
    (*RANKING, *FOUND),
  ),
  'table_nb201': Item(
    'NAS-Bench-201 on CIFAR-10',
    ('strategy',),
    table_nb201,
    (*RANKING, *DENSITY),
    note='The published figure of importance ranks on the test set.',
  ),
  'table_imagenet': Item(
    'ImageNet: 13^21 architectures under 330M multiply-adds',
    ('strategy',),
    table_imagenet,
    ('searched', 'macs', 'retrained'),
    scales=('paper',),
    note='Published: the original searches, under limits of their own.',
  ),
  'table_samplers': Item(
    'Strategies side by side, on Pooling',
    ('strategy', ''),
    table_samplers,
    (*RANKING, *FOUND),
    note='All train on as many path-gradients.',
  ),
  'table_measures': Item(
    'What densities compare',
    ('space', 'measure'),
    table_measures,
    (*RANKING, *DENSITY),
  ),
}


def with_temperatures(more: Sequence[float]) -> dict[str, Item]:
  """All items; table5 has rows of these temperatures, too."""
  table = dataclasses.replace(
    ITEMS['table5'], rows=functools.partial(table5, more=more)
  )
  return ITEMS | {'table5': table}
