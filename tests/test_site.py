"""The site of the documentation: strict, from here alone, and all of it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
# Whoever opens a connection ends.
WITHOUT_NETWORK = """
import socket, sys
def refuse(*given): raise SystemExit('no network')
socket.socket.connect = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli(sys.argv[1:])
"""


def build(root, out):
  """Builds the site of a checkout; returns the process that did."""
  pytest.importorskip('mkdocs', reason='needs the extra docs')
  pytest.importorskip('mkdocstrings_handlers.python')
  return subprocess.run(
    [
      sys.executable, '-c', WITHOUT_NETWORK,
      'build', '--strict', '--site-dir', str(out),
    ],
    cwd=root, capture_output=True, text=True, timeout=300, check=False,
  )  # fmt: skip


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  out = tmp_path_factory.mktemp('site') / 'site'
  done = build(ROOT, out)
  assert done.returncode == 0, done.stderr[-2000:]
  return out


def test_pages_load_nothing_from_elsewhere(site):
  pages = sorted(site.glob('*.html'))
  assert len(pages) > 20
  for page in pages:
    text = page.read_text('utf-8')
    loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(\S+?)"', text)
    assert loaded and not [link for link in loaded if '//' in link], page


def test_the_reference_has_every_public_name(site):
  import jaxnas

  text = (site / 'api.html').read_text('utf-8')
  for name in jaxnas.__all__:
    if name != '__version__':
      assert re.search(rf'id="jaxnas\.[\w.]+\.{name}"', text), name


@pytest.mark.parametrize(
  'link', ['[x](nowhere.md)', '[x](../jaxnas/none.py)', '[x](data.md#none)']
)
def test_a_broken_link_fails(link, tmp_path):
  for name in ('docs', 'launch', 'results'):
    shutil.copytree(
      ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('*.npz')
    )
  for name in ('jaxnas', 'examples', 'configs', 'tests'):
    (tmp_path / name).symlink_to(ROOT / name)
  for file in ROOT.glob('*.*'):
    if file.is_file():
      shutil.copy(file, tmp_path)
  good = build(tmp_path, tmp_path / 'site')
  assert good.returncode == 0, good.stderr[-2000:]
  with (tmp_path / 'docs/questions.md').open('a') as stream:
    stream.write(f'\n{link}\n')
  assert build(tmp_path, tmp_path / 'site').returncode == 1
