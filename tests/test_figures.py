"""Figures as they are drawn, as they are saved, and as they stand in a page."""

import json

import numpy as np
import pytest

from jaxnas.report import blocks, charts, drawing, marks, page, palette, svg
from jaxnas.report import sheet as paper
from support.elements import Elements


def chart(**fields):
  defaults = {'name': 'c', 'title': 't', 'xlabel': 'x', 'ylabel': 'y'}
  return charts.Chart(**(defaults | fields))


def drawn_text(figure):
  """The figure's element as it stands in a page."""
  with paper.style(figure.name):
    sheet = drawing.draw(figure)
    return svg.for_page(svg.to_svg(sheet), sheet, figure.title)


def drawn(figure):
  return Elements(drawn_text(figure))


def dots_of(figure):
  return [a for _, a in drawn(figure).tags if 'data-t' in a]


def cells_of(figure):
  (image,) = (a for _, a in drawn(figure).tags if 'data-cells' in a)
  return json.loads(image['data-cells'])


def test_figures_are_the_same_bytes_each_time(tmp_path):
  x_N = np.array([1.0, 50.0])
  dots = charts.Dots(label='d', colour=0, x_N=x_N, y_N=x_N)
  figure = chart(marks=[dots], diagonal=True)
  (_, first), element = svg.save(figure, tmp_path)
  before = first.read_bytes()
  assert svg.save(figure, tmp_path)[1] == element
  assert first.read_bytes() == before and b'dc:date' not in before


def test_a_page_colours_figures_for_light_and_dark():
  assert palette.LIGHT.keys() == palette.DARK.keys()
  line = charts.Line(
    label='l', colour=1, x_N=np.arange(3.0), y_N=np.arange(3.0) ** 2,
    low_N=np.zeros(3), high_N=np.full(3, 9.0), dotted=True,
  )  # fmt: skip
  bars = charts.Bars(
    label='b', colour=2, edges_M=np.arange(4.0), count_N=np.array([1, 0, 2])
  )
  for figure in (
    chart(marks=[line], levels={'level': 1.0}, turns={'turn': 1.0}),
    chart(marks=[bars, bars]),
    charts.Amounts(name='a', title='t', unit='s', parts={'r': {'x': 1.0}}),
  ):
    styles = ' '.join(a.get('style', '') for _, a in drawn(figure).tags)
    assert 'var(--s' in styles and '#' not in styles.replace('url(#', '')


def test_titles_and_legends_of_files_are_text_in_a_page(tmp_path):
  line = charts.Line(
    label='run', colour=0, x_N=np.arange(3.0), y_N=np.arange(3.0)
  )
  figure = chart(title='A title', marks=[line, line])
  (_, file), element = svg.save(figure, tmp_path)
  for text in ('A title', 'run'):
    assert f'>{text}</text>' in file.read_text('utf-8')
    assert f'>{text}</text>' not in element
  text = page.page(
    't', [], [], [blocks.Section('s', [figure])], {figure.name: element}
  )
  assert '<h3>A title</h3>' in text and 'var(--s0)"></i>run</span>' in text
  left, top, width, _ = map(float, Elements(element).view.split())
  assert (left, width) == (paper.PAD, paper.WIDTH) and top > paper.PAD


def test_ranks_have_the_best_at_the_top_right():
  x_N = np.array([1.0, 50.0])
  dots = charts.Dots(label='d', colour=0, x_N=x_N, y_N=x_N)
  best, worst = (
    {key: float(a[key]) for key in ('x', 'y')}
    for a in dots_of(chart(marks=[dots], ranks=True, diagonal=True))
  )
  assert best['x'] > worst['x'] and best['y'] < worst['y']


def test_each_dot_says_its_own_text():
  """Dots without a place are left out, and ringed ones are drawn last."""
  dots = charts.Dots(
    label='d', colour=0, x_N=np.array([3.0, np.nan, 2.0, 1.0]),
    y_N=np.arange(4.0), texts=['a', 'b', 'c', 'd'], ringed_M=np.array([0]),
  )  # fmt: skip
  found = dots_of(chart(marks=[dots]))
  assert [a['data-t'] for a in found] == ['c', 'd', 'a']
  d, c, a = sorted(found, key=lambda dot: float(dot['x']))
  assert [one['data-t'] for one in (d, c, a)] == ['d', 'c', 'a']


def test_a_line_says_its_numbers():
  line = charts.Line(
    label='run', colour=0, x_N=np.array([1.0, 2.0]), y_N=np.array([0.25, 0.5])
  )
  said = [a['data-t'] for a in dots_of(chart(marks=[line]))]
  assert said == ['run\nx 1\n0.25', 'run\nx 2\n0.5']


def test_many_dots_are_thinned_but_for_the_ringed_ones():
  x_N = np.arange(6561.0)
  dots = charts.Dots(
    label='d', colour=0, x_N=x_N, y_N=x_N, texts=[f'{x:g}' for x in x_N],
    ringed_M=np.arange(10),
  )  # fmt: skip
  figure = chart(marks=[dots])
  found = dots_of(figure)
  assert charts.MOST_DOTS <= len(found) <= charts.MOST_DOTS + 10
  assert [a['data-t'] for a in found[-10:]] == [str(n) for n in range(10)]
  said = page.page('t', [], [], [blocks.Section('s', [figure])], {'c': ''})
  assert f'6,561 dots, of which {len(found):,} are drawn.' in said


def test_undefined_cells_are_told_from_values():
  grid = charts.Grid(
    name='g', title='t', xlabel='epoch', rows=['a'], columns=['0', '1'],
    value_RxC=np.array([[np.nan, 0.25]]), unit='u',
  )  # fmt: skip
  assert cells_of(grid) == {
    'rows': ['a'], 'columns': ['epoch 0', 'epoch 1'], 'unit': 'u',
    'values': [[None, 0.25]],
  }  # fmt: skip
  assert charts.limits(grid) == (0.25, 0.25)


def test_a_square_has_a_row_an_architecture_and_few_names():
  names = [f'arch {n}' for n in range(64)]
  grid = charts.Grid(
    name='g', title='t', xlabel='64 architectures', rows=names, columns=names,
    value_RxC=np.eye(64), unit='u',
  )  # fmt: skip
  cells = cells_of(grid)
  assert cells['rows'] == cells['columns'] == names
  assert np.array_equal(cells['values'], np.eye(64))
  # As wide as high, and names are told apart.
  *_, tall = Elements(drawn_text(grid)).view.split()
  wide = paper.WIDTH - paper.NAMES - paper.RIGHT
  assert float(tall) - drawing.BELOW - drawing.KEY == pytest.approx(wide, 0.1)
  at = [
    float(a['y']) for _, a in drawn(grid).tags
    if 'text-anchor:end' in a.get('style', '') and '11px' in a['style']
  ]  # fmt: skip
  assert len(at) > 10 and np.abs(np.diff(at)).min() >= 11


def test_ticks_of_counts_are_whole():
  assert marks.ticks(0.0, 2.1, counts=True) == [0, 1, 2]
  assert marks.ticks(0.0, 2.1) == [0, 0.5, 1, 1.5, 2]
  assert marks.ticks(-3.0, 84.0, ranks=True) == [1, 20, 40, 60, 80]
