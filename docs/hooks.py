"""Adds the READMEs of rooms to the site, and leads links to where they stand.

A README is written once, beside its code. On the site it is a page, and a link
to a file of the repository that is no page is shown as that file's path.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]

# Pages of the site, by the file of the repository that they show.
PAGES = {
  'jaxnas/samplers/README.md': 'samplers.md',
  'jaxnas/searchers/README.md': 'searchers.md',
  'jaxnas/density/README.md': 'densities.md',
  'jaxnas/training/README.md': 'resumption.md',
  'jaxnas/reproduce/README.md': 'reproduction.md',
  'jaxnas/README.md': 'code.md',
  'jaxnas/many/README.md': 'many.md',
  'launch/README.md': 'launching.md',
  'results/README.md': 'results.md',
  'CONTRIBUTING.md': 'contributing.md',
  'CHANGELOG.md': 'changelog.md',
}
LINK = re.compile(r'(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)')

log = logging.getLogger('mkdocs.plugins.hooks')


def on_files(files, config):
  for source, page in PAGES.items():
    text = (ROOT / source).read_text('utf-8')
    files.append(File.generated(config, page, content=text))
  return files


def on_page_markdown(markdown, page, config, files):
  """Leads each link, which stands as in the repository, to its page."""
  here = page.file.src_uri
  source = next(
    (file for file, name in PAGES.items() if name == here), f'docs/{here}'
  )
  folder = posixpath.dirname(source)

  def led(found):
    image, words, link, anchor = found.groups()
    if '://' in link or link.startswith('mailto:'):
      return found[0]
    target = posixpath.normpath(posixpath.join(folder, link))
    if not (ROOT / target).exists():
      log.warning('%s links to %s, which does not exist.', source, link)
      return found[0]
    if target in PAGES:
      return f'[{words}]({PAGES[target]}{anchor or ""})'
    if target.startswith('docs/') and not target.endswith('.py'):
      target = target.removeprefix('docs/')
      return f'{image}[{words}]({target}{anchor or ""})'
    named = words.strip('`') in (target, posixpath.basename(target))
    return f'`{target}`' if named else f'{words} (`{target}`)'

  # Two intervals in a row are no link by reference.
  return LINK.sub(led, markdown).replace('] [', '] \\[')
