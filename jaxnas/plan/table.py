"""Prints plans side by side, a column for each machine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table as RichTable

from jaxnas.plan.peaks import GB, GIB, Chip
from jaxnas.runtime import table as console


def _milliseconds(seconds: float) -> str:
  return f'{seconds * 1e3:.3g}'


def _gib(size: int | float) -> str:
  return f'{size / GIB:.2f}'


def _megabytes(size: float) -> str:
  return f'{size / 1e6:,.1f}'


def _count(number: float) -> str:
  # A program of several steps is launched less than once a step.
  return f'{number:,.0f}' if number >= 1 else f'{number:.2g}'


def _gigabytes(size: float) -> str:
  return f'{size / 1e9:,.3f}'


# (label of the row, key of an estimate, function that writes the value)
ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
  ('compiled', 'quick', lambda quick: 'quickly' if quick else 'fully'),
  ('  s', 'compile_s', _count),
  ('devices', 'devices', str),
  ('batch', 'batch_size', str),
  ('  groups normalised apart', 'bn_groups', str),
  ('memory a device, GiB', 'memory_bytes', _gib),
  ('  available', 'memory_available_bytes', _gib),
  ('  fits', 'fits', lambda fits: 'yes' if fits else 'NO'),
  ('largest batch', 'largest_batch_size', str),
  ('TFLOP a step', 'step_flops', lambda flops: f'{flops / 1e12:.3g}'),
  ('launches by the host', 'host_launches', _count),
  ('  without graphs', 'host_launches_without_graphs', _count),
  ('  waits of the host', 'host_waits', _count),
  ('  waits without graphs', 'host_waits_without_graphs', _count),
  ('memory traffic, GB', 'memory_traffic_bytes', _gigabytes),
  ('collectives a step', 'collectives', lambda count: f'{count:.0f}'),
  ('  MB a device', 'collective_bytes', _megabytes),
  ('step by compute, ms', 'compute_s', _milliseconds),
  ('  by memory', 'memory_s', _milliseconds),
  ('  by interconnect', 'interconnect_s', _milliseconds),
  ('bound by', 'bound', str),
  ('images/s, at most', 'images_per_s', lambda rate: f'{rate:,.0f}'),
  ('hours, at least', 'hours', lambda hours: f'{hours:,.3g}'),
)


def table(title: str, plans: Sequence[Mapping[str, Any]]) -> RichTable:
  """Makes the table; values that are unknown or not asked for are dashes."""
  out = RichTable(title=title, box=box.SIMPLE_HEAD)
  out.add_column('')
  for plan in plans:
    out.add_column(plan['topology'], justify='right')
  for label, key, write in ROWS:
    values = [plan.get(key) for plan in plans]
    out.add_row(
      label, *('-' if value is None else write(value) for value in values)
    )
  return out


def kinds(plans: Sequence[Mapping[str, Any]]) -> RichTable:
  """Makes the table of memory traffic by kind of work, in GB."""
  out = RichTable(title='memory traffic a step, GB', box=box.SIMPLE_HEAD)
  out.add_column('')
  for plan in plans:
    out.add_column(plan['topology'], justify='right')
  of_plans = [plan.get('traffic_by_kind', {}) for plan in plans]
  for name in dict.fromkeys(name for each in of_plans for name in each):
    out.add_row(
      name,
      *(_gigabytes(each[name]) if name in each else '-' for each in of_plans),
    )
  return out


def show(title: str, plans: Sequence[Mapping[str, Any]]) -> None:
  console.show(table(title, plans))
  if any(plan.get('traffic_by_kind') for plan in plans):
    console.show(kinds(plans))


def peaks(chip: Chip) -> str:
  """Says in one line the peak figures of a chip and their source."""
  between = (
    f', {chip.host_bytes_per_s / GB:.0f} GB/s between hosts'
    if chip.host_bytes_per_s
    else ''
  )
  return (
    f'{chip.flops_per_s / 1e12:.0f} TFLOP/s bfloat16, '
    f'{chip.memory_bytes / GIB:.2f} GiB usable at '
    f'{chip.memory_bytes_per_s / GB:,.0f} GB/s, '
    f'{chip.link_bytes_per_s / GB:.0f} GB/s a link one way{between} '
    f'({chip.source})'
  )
