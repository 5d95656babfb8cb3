"""Writes sections as one HTML page that needs nothing else.

Everything that comes from files is escaped, and a policy in the page lets
nothing load but images within it, and no script run but its own.
"""

import base64
import hashlib
import importlib.resources
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from jaxnas.report import charts, folders, palette, sections, svg
from jaxnas.report.blocks import Code, Network, Section, Table
from jaxnas.runtime import files, outputs, places

# What a report says of its origin.
GENERATOR = '<meta name="generator" content="jaxnas.report">'


def write(
  runs: Sequence[Path], out: Path, *, title: str | None = None
) -> list[Path]:
  """Writes the page `out`, and its figures in a folder of its name.

  Args:
    runs: run directories of `jaxnas.train`.
    out: an html file; replaced where it exists.
    title: the title of the page; None: the space and data of the first run.

  Returns the files of the figures, and prints a line for each file of a run
  that is damaged. Raises ValueError or FileNotFoundError
  where a folder holds no run.
  """
  read = folders.read(runs)
  parts = sections.sections(read)
  given = read[0].config
  folder = out.with_suffix('')
  places.make(folder)
  drawn, written = {}, []
  for part in parts:
    for block in part.blocks:
      if isinstance(block, charts.Figure):
        paths, drawn[block.name] = svg.save(block, folder)
        written += paths
  title = title or f'{given.space} on {given.data.name}'
  where = [(run.label, run.name) for run in read]
  text = page(title, where, sections.summary(read), parts, drawn)
  files.write_text(out, text)
  for run in read:
    for name, why in run.lacks.items():
      print(f'warning: the page is without {name} of {run.label}, which {why}')
  return written


def check_out(
  out: Path, runs: Sequence[Path], *, overwrite: bool = False
) -> None:
  """Raises ValueError where `write` would replace what no report is."""
  outputs.check_file(out, '--out', _check_ours, overwrite=overwrite)
  folder = out.with_suffix('')
  places.check(folder, *runs)
  if folder == out or (os.path.lexists(folder) and not folder.is_dir()):
    raise ValueError(
      f'--out {out} needs {folder} as a folder for figures: choose another '
      'name, such as report.html.'
    )
  if (
    not (overwrite or out.exists())
    and folder.is_dir()
    and any(folder.iterdir())
  ):
    raise ValueError(
      f'--out {out}: {folder} would get its figures, and is not empty: choose '
      'another, or add --overwrite.'
    )


def _check_ours(file: Path) -> None:
  """Raises ValueError where a file is no report."""
  if GENERATOR.encode() not in files.read_bytes(file):
    raise ValueError('it is no report')


def page(
  title: str,
  where: Sequence[tuple[str, str]],
  lines: Sequence[str],
  parts: Sequence[Section],
  drawn: dict[str, str],
) -> str:
  """Returns the whole page.

  Args:
    title: the title of the page.
    where: labels of the runs, and the names of their folders.
    lines: the summary, a paragraph each.
    parts: the sections, in their order.
    drawn: SVG elements by the name of their figure, from `svg.save`.
  """
  script = _asset('page.js')
  digest = hashlib.sha256(script.encode()).digest()
  environment = jinja2.Environment(
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.tests |= {
    'figure': lambda block: isinstance(block, charts.Figure),
    'table': lambda block: isinstance(block, Table),
    'network': lambda block: isinstance(block, Network),
    'code': lambda block: isinstance(block, Code),
  }
  return environment.from_string(_asset('page.html')).render(
    generator=Markup(GENERATOR),
    title=title,
    where=where,
    lines=lines,
    parts=parts,
    drawn={name: Markup(element) for name, element in drawn.items()},
    legend=charts.legend,
    notes=charts.notes,
    colours={'light': palette.LIGHT, 'dark': palette.DARK},
    swatch=palette.name_of,
    # Our own style and script stand in the page as they are.
    style=Markup(_asset('page.css')),
    script=Markup(script),
    digest=base64.b64encode(digest).decode(),
  )


def _asset(name: str) -> str:
  folder = importlib.resources.files('jaxnas.report')
  return (folder / name).read_text('utf-8')
