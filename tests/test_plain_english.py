"""Docstrings are sentences with a subject."""

import ast
import re
from pathlib import Path

import pytest

import jaxnas

ROOT = Path(jaxnas.__file__).parents[1]
FILES = sorted(
  file
  for folder in ('jaxnas', 'tests', 'configs', 'examples')
  for file in (ROOT / folder).rglob('*.py')
)

# A docstring that starts so says something of nothing.
HEADLESS = re.compile(
  r'(Of|What|As|Whether|That|Those|Where|Whatever|By|How|Which|Whose|When|Why'
  r'|Who|The same|With which|On which|In which|None:)\b'
)


DOCUMENTED = (
  ast.Module,
  ast.ClassDef,
  ast.FunctionDef,
  ast.AsyncFunctionDef,
)


def docstrings(tree):
  """Yields (line, text), those below fields included."""
  for node in ast.walk(tree):
    if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
      yield node.body[0].lineno, ast.get_docstring(node)
    if isinstance(node, ast.ClassDef):
      for field, below in zip(node.body, node.body[1:], strict=False):
        text = below.value if isinstance(below, ast.Expr) else None
        if (
          isinstance(field, ast.AnnAssign)
          and isinstance(text, ast.Constant)
          and isinstance(text.value, str)
        ):
          yield below.lineno, text.value


def headless(file):
  return [
    f'{file.relative_to(ROOT)}:{line}: {text.strip().splitlines()[0]}'
    for line, text in docstrings(ast.parse(file.read_text()))
    if HEADLESS.match(text.strip())
  ]


@pytest.mark.parametrize(
  'file', FILES, ids=lambda file: str(file.relative_to(ROOT))
)
def test_docstrings_have_a_subject(file):
  assert not headless(file)


def test_what_is_headless_is_found():
  code = 'class A:\n  """Whatever."""\n  x: int = 0\n  """Of imagenet."""\n'
  found = [text for _, text in docstrings(ast.parse(code))]
  assert found == ['Whatever.', 'Of imagenet.']
  assert all(HEADLESS.match(text) for text in found)


if __name__ == '__main__':
  # python tests/test_plain_english.py counts them.
  everything = [line for file in FILES for line in headless(file)]
  print('\n'.join(everything))
  total = sum(len([*docstrings(ast.parse(file.read_text()))]) for file in FILES)
  print(f'{len(everything)} of {total} docstrings are headless')
