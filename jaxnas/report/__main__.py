"""One page about runs, which needs no network, and its figures as files.

For instance `python -m jaxnas.report runs/macro --out report.html`. A run's
undebiased twin is shown beside it. PNG and SVG files of the figures stand in a
folder of the page's name.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from jaxnas import cli


@dataclasses.dataclass(frozen=True)
class Report:
  """Flags of the command."""

  runs: tyro.conf.Positional[tuple[Path, ...]]
  """Run directories of jaxnas.train."""
  out: Path | None = None
  """The page. Default: report.html in the first run."""
  title: str | None = None
  """Of the page. Default: space and data."""


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.read(
    Report, argv, prog='python -m jaxnas.report', description=__doc__
  )
  with cli.usage_errors():
    if not args.runs:
      raise ValueError('no run: give folders that jaxnas.train wrote.')
    from jaxnas.report import write

    out = args.out or args.runs[0] / 'report.html'
    drawn = write(args.runs, out, title=args.title)
  print(f'{out}: {len(drawn)} figures, also in {out.with_suffix("")}/')
  return 0


if __name__ == '__main__':
  sys.exit(main())
