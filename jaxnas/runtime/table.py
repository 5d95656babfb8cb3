"""Makes and prints the tables of commands, which all look alike."""

import sys
from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

# Columns of a line where nobody looks, as in a file.
WIDTH = 110

# Names of rows, and words in other columns, are readable where they fold at so
# many characters.
NAMES, WORDS = 16, 8


def table(
  title: str, columns: Sequence[str], *, words: Sequence[str] = ()
) -> Table:
  """Makes an empty table.

  Args:
    title: the line above it.
    columns: heads; the first column names the rows.
    words: heads of further columns that hold words: they stand at the left, and
      break where they are long, as the names of MobileNet's architectures are.
  """
  out = Table(title=title, box=box.SIMPLE_HEAD)
  for number, head in enumerate(columns):
    left = number == 0 or head in words
    out.add_column(
      head,
      justify='left' if left else 'right',
      # So that words break before numbers do.
      no_wrap=not left,
      overflow='fold' if left else 'ellipsis',
    )
  return out


def show(made: Table, *, width: int | None = None) -> None:
  """Prints a table; `width` counts where no terminal says its own.

  Where the terminal is too narrow for its columns, each row becomes a list of
  heads and values.
  """
  console = Console(width=None if sys.stdout.isatty() else width)
  if _needs(made) <= console.width:
    console.print(made)
    return
  console.print(made.title, justify='center')
  for name, rows in _as_lists(made):
    if name:
      console.print(f'\n{name}')
    console.print(rows)
  if made.caption:
    console.print(f'\n{made.caption}')


def _needs(made: Table) -> int:
  """Returns the width in which no cell loses anything that it would miss."""
  # Columns of a box are divided, and its edges are as wide.
  width = len(made.columns) - 1 + 2 * made.show_edge
  for number, column in enumerate(made.columns):
    cells = [str(column.header), *map(str, column.cells)]
    widest = max(cell_len(line) for cell in cells for line in cell.split('\n'))
    folds = column.overflow == 'fold' and not column.no_wrap
    _, right, _, left = made.padding
    if folds:
      widest = min(widest, WORDS if number else NAMES)
    width += widest + right + left
  return width


def _as_lists(made: Table) -> Iterator[tuple[str, Table]]:
  """Yields for each row its name, and its other cells below their heads."""
  first, *others = made.columns
  names = map(str, first.cells)
  for name, *cells in zip(names, *(c.cells for c in others), strict=True):
    out = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    out.add_column(width=1)
    out.add_column()
    out.add_column(overflow='fold')
    for column, cell in zip(others, cells, strict=True):
      if str(cell):
        out.add_row('', str(column.header), str(cell))
    yield name, out
