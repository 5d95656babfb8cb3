"""Counts what a step makes the host do on a GPU: launches, and waits.

XLA lists what a program does as thunks, once as it is and once in CUDA graphs;
`jaxnas.runtime.graphs` says what becomes one. The host launches a thunk or a
graph, and waits before each branch that is in none.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# Files of XLA's dump: without graphs, and with those it was asked for.
PLAIN = '*thunk_sequence.txt'
IN_GRAPHS = '*thunk_sequence_after_thunk_passes.txt'

_LINE = re.compile(r'( *)(?:\d+: (k\w+)|(condition|body|branch_(\d+)):)')
# What holds others and launches nothing by itself.
_HOLDERS = ('kConditional', 'kWhile', 'kSequential', 'kDynamicSliceFusion')


class Host(NamedTuple):
  """Counts of what the host does in a step."""

  launches: float
  waits: float

  def of_one(self, steps: int) -> 'Host':
    """Returns the share of one of several steps."""
    return Host(self.launches / steps, self.waits / steps)


def read(folder: Path, loops: Sequence[int]) -> tuple[Host, Host] | None:
  """Reads a step's dump: without graphs, and with them; None: there is none.

  Args:
    folder: where XLA wrote its dump.
    loops: rounds of each loop, in the order they run.
  """
  # A step is the largest of the programs.
  plain = max(folder.glob(PLAIN), key=_size, default=None)
  if plain is None:
    return None
  graphs = max(folder.glob(IN_GRAPHS), key=_size, default=plain)
  return count(plain.read_text(), loops), count(graphs.read_text(), loops)


def _size(file: Path) -> int:
  return file.stat().st_size


def count(text: str, loops: Sequence[int]) -> Host:
  """Counts launches and waits of a list of thunks.

  Branches that are in no graph count alike.
  """
  rounds = iter(loops)
  launches = waits = 0.0
  # Of each thunk around: indentation, kind, and times that what is in it runs.
  around: list[tuple[int, str, float]] = []
  branches = _branches(text)
  skipped: int | None = None
  for number, (indent, kind, part) in enumerate(_lines(text)):
    if skipped is not None and part != 'body':
      continue
    # A loop of known length does not evaluate its condition.
    skipped = indent if part == 'condition' else None
    if not kind:
      continue
    while around and around[-1][0] >= indent:
      around.pop()
    times = around[-1][2] if around else 1.0
    if any(each == 'kCommandBuffer' for _, each, _ in around):
      # The graph does it. The rounds of a loop are still of the next one.
      if kind == 'kWhile':
        next(rounds, 1)
      continue
    waits += times * (kind == 'kConditional')
    launches += times * (kind not in _HOLDERS)
    if kind == 'kWhile':
      times *= next(rounds, 1)
    if kind == 'kConditional':
      times /= branches.get(number, 1)
    around.append((indent, kind, times))
  return Host(launches, waits)


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
  """Yields indentation, kind of thunk and name of a part; one of them is ''."""
  for line in text.splitlines():
    if found := _LINE.match(line):
      yield len(found[1]), found[2] or '', found[3] or ''


def _branches(text: str) -> dict[int, int]:
  """Returns the number of branches of each conditional, by its line."""
  out: dict[int, int] = {}
  open_: list[tuple[int, int]] = []
  for number, (indent, kind, part) in enumerate(_lines(text)):
    while kind and open_ and open_[-1][0] >= indent:
      open_.pop()
    if kind == 'kConditional':
      open_.append((indent, number))
    elif part.startswith('branch_') and open_:
      _, owner = open_[-1]
      out[owner] = max(out.get(owner, 0), int(part[7:]) + 1)
  return out
