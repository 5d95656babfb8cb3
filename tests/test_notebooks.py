"""The notebooks of `examples/` run from top to bottom, with small outputs."""

import shutil
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / 'examples'
NOTEBOOKS = sorted(EXAMPLES.glob('*.ipynb'))


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_small_and_has_run(notebook):
  assert notebook.stat().st_size < 60_000
  text = notebook.read_text('utf-8')
  assert '"execution_count": null' not in text
  assert 'Traceback' not in text and str(EXAMPLES.parent) not in text


@pytest.mark.slow
@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_in_an_empty_folder(notebook, tmp_path):
  nbclient = pytest.importorskip('nbclient', reason='needs the extra notebooks')
  nbformat = pytest.importorskip('nbformat')
  shutil.copy(EXAMPLES / 'own_space.py', tmp_path)
  read = nbformat.read(notebook, 4)
  client = nbclient.NotebookClient(
    read, timeout=500, resources={'metadata': {'path': str(tmp_path)}}
  )
  client.execute()
  cells = [cell for cell in read.cells if cell.cell_type == 'code']
  assert all(cell.execution_count for cell in cells)
  assert (tmp_path / 'own/export/network.bin').exists() == (
    notebook.stem == 'own_space'
  )


def test_there_are_notebooks():
  assert len(NOTEBOOKS) == 2
