"""A page that shows runs: what they did, and how far it can be trusted."""

from collections.abc import Sequence
from pathlib import Path


def write(
  folders: Sequence[Path], out: Path, *, title: str | None = None
) -> list[Path]:
  """Writes the page `out`, and its figures in a folder of its name.

  Args:
    folders: run directories of `jaxnas.train`.
    out: an html file; replaced where it exists.
    title: of the page; None: what the first run trained, and on what.

  Returns the files of the figures. Raises ValueError or FileNotFoundError
  where a folder holds no run.
  """
  # matplotlib comes after the flags, so that `--help` is quick.
  from jaxnas import runs
  from jaxnas.report import charts, files, page, sections
  from jaxnas.report import folders as reading

  read = reading.read(folders)
  parts = sections.sections(read)
  given = read[0].config
  out.parent.mkdir(parents=True, exist_ok=True)
  runs.write_text(
    out,
    page.page(
      title or f'{given.space} on {given.data.name}',
      sections.summary(read),
      parts,
    ),
  )
  folder = out.with_suffix('')
  folder.mkdir(exist_ok=True)
  return [
    file
    for part in parts
    for block in part.blocks
    if isinstance(block, charts.Chart | charts.Grid | charts.Amounts)
    for file in files.save(block, folder)
  ]
