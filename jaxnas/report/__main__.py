"""Write one page about runs, which needs no network, and its figures as files.

For instance `python -m jaxnas.report runs/macro --out report.html`. The page
shows a run's undebiased twin beside it. PNG and SVG files of the figures are
written to a folder that has the page's name.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from jaxnas.config import flags
from jaxnas.runtime import errors, streams, words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(flags.Writes):
  """Flags of the command."""

  runs: tyro.conf.Positional[tuple[Path, ...]]
  """Run directories that jaxnas.train wrote."""
  out: Path | None = None
  """The file of the page. Default: report.html in the first run."""
  title: str | None = None
  """The title of the page. Default: the space and the data."""


def main(argv: Sequence[str] | None = None) -> int:
  args = flags.read(
    Report, argv, prog='python -m jaxnas.report', description=__doc__
  )
  with errors.usage_errors():
    if not args.runs:
      raise ValueError('no run: give folders that jaxnas.train wrote.')
    from jaxnas.report import page

    out = args.out or args.runs[0] / 'report.html'
    page.check_out(out, args.runs, overwrite=args.overwrite)
    files = page.write(args.runs, out, title=args.title)
  drawn = len({file.stem for file in files})
  if not drawn:
    print(f'{out}: no figure, since the page found nothing to draw')
    return 0
  print(
    f'{out}: {words.counted(drawn, "figure")}, also as PNG and SVG in '
    f'{out.with_suffix("")}/'
  )
  return 0


if __name__ == '__main__':
  streams.run(main)
