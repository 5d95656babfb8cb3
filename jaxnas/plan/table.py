"""Plans side by side: a column for each machine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from jaxnas.plan.peaks import GB, GIB, Chip


def _milliseconds(seconds: float) -> str:
  return f'{seconds * 1e3:.3g}'


def _gib(size: int | float) -> str:
  return f'{size / GIB:.2f}'


def _megabytes(size: float) -> str:
  return f'{size / 1e6:,.1f}'


# (what it says, key of an estimate, how it is written)
ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
  ('compiled', 'quick', lambda quick: 'quickly' if quick else 'fully'),
  ('devices', 'devices', str),
  ('batch', 'batch_size', str),
  ('  parts normalised alone', 'bn_groups', str),
  ('memory a device, GiB', 'memory_bytes', _gib),
  ('  of', 'memory_available_bytes', _gib),
  ('  fits', 'fits', lambda fits: 'yes' if fits else 'NO'),
  ('largest batch', 'largest_batch_size', str),
  ('TFLOP a step', 'step_flops', lambda flops: f'{flops / 1e12:.3g}'),
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
  """What is not known, or was not asked for, is a dash."""
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


def show(title: str, plans: Sequence[Mapping[str, Any]]) -> None:
  Console().print(table(title, plans))


def peaks(chip: Chip) -> str:
  """What is assumed of a chip, and who says so; one line."""
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
