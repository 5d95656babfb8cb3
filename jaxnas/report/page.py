"""Sections as one HTML page that needs nothing else.

What comes from files is escaped, and a policy in the page lets nothing load
and no script run but its own.
"""

import base64
import hashlib
import html
import importlib.resources
from collections.abc import Sequence

from jaxnas.report import charts, svg
from jaxnas.report.sections import Code, Section, Table


def page(title: str, lines: Sequence[str], parts: Sequence[Section]) -> str:
  """The whole page.

  Args:
    title: of the page.
    lines: the summary.
    parts: what follows.
  """
  style, script = _asset('page.css'), _asset('page.js')
  digest = hashlib.sha256(script.encode()).digest()
  policy = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src "
    f"'sha256-{base64.b64encode(digest).decode()}'"
  )
  links = ' '.join(
    f'<a href="#{_anchor(part)}">{html.escape(part.title)}</a>'
    for part in parts
  )
  summary = '\n'.join(f'<p>{html.escape(line)}</p>' for line in lines)
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<p class="brand">jaxnas report</p>
<h1>{html.escape(title)}</h1>
<div class="summary">
{summary}
</div>
<nav>{links}</nav>
</header>
<main>
{chr(10).join(map(_section, parts))}
</main>
<div id="tip" role="status" hidden></div>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
  folder = importlib.resources.files('jaxnas.report')
  return (folder / name).read_text('utf-8')


def _anchor(part: Section) -> str:
  return part.title.lower().replace(' ', '-')


def _section(part: Section) -> str:
  blocks, figures = [], []
  for block in part.blocks:
    if isinstance(block, charts.Chart | charts.Grid | charts.Amounts):
      figures.append(_figure(block))
    elif isinstance(block, Table):
      blocks.append(_table(block))
    elif isinstance(block, Code):
      blocks.append(_code(block))
    else:
      blocks.append(f'<p>{html.escape(block)}</p>')
  if figures:
    blocks.append(f'<div class="figures">{"".join(figures)}</div>')
  blocks += [
    f'<p class="lacking">{html.escape(line)}</p>' for line in part.lacking
  ]
  return (
    f'<section id="{_anchor(part)}">\n<h2>{html.escape(part.title)}</h2>\n'
    + '\n'.join(blocks)
    + '\n</section>'
  )


def _figure(figure: charts.Figure) -> str:
  note = html.escape(figure.note)
  thinned = [
    f'{len(mark.x_N):,} dots, of which {len(svg.thinned(mark)):,} are drawn.'
    for mark in getattr(figure, 'marks', ())
    if isinstance(mark, charts.Dots) and len(mark.x_N) > svg.MOST_DOTS
  ]
  note = ' '.join([note, *thinned]).strip()
  return (
    f'<figure>\n<h3>{html.escape(figure.title)}</h3>\n{_legend(figure)}'
    f'{svg.figure(figure)}\n'
    + (f'<figcaption>{note}</figcaption>\n' if note else '')
    + '</figure>\n'
  )


def _legend(figure: charts.Figure) -> str:
  if isinstance(figure, charts.Amounts):
    keys = [(f'k{k}', name) for k, name in enumerate(svg.kinds(figure))]
  elif isinstance(figure, charts.Chart) and len(figure.marks) > 1:
    keys = [(f's{mark.colour}', mark.label) for mark in figure.marks]
  else:
    return ''
  words = ''.join(
    f'<span><i class="{class_}"></i>{html.escape(name)}</span>'
    for class_, name in keys
  )
  return f'<p class="legend">{words}</p>\n'


def _table(table: Table) -> str:
  head = ''.join(f'<th scope="col">{html.escape(c)}</th>' for c in table.head)
  rows = '\n'.join(
    f'<tr><th scope="row">{html.escape(first)}</th>'
    + ''.join(f'<td>{html.escape(cell)}</td>' for cell in rest)
    + '</tr>'
    for first, *rest in table.rows
  )
  note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ''
  return (
    f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
    f'{rows}\n</tbody>\n</table></div>\n{note}'
  )


def _code(code: Code) -> str:
  title, text = html.escape(code.title), html.escape(code.text)
  if code.folded:
    return f'<details><summary>{title}</summary><pre>{text}</pre></details>'
  return f'<h3>{title}</h3>\n<pre>{text}</pre>'
