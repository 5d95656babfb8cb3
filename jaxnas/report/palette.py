"""The colours of the page and of every figure, by name, on light and dark.

Figures are drawn in the light colours. The page turns each of them into a
variable of its style sheet, so that one drawing serves both.
"""

from collections.abc import Mapping

LIGHT: Mapping[str, str] = {
  'paper': '#fbfbf9',
  'card': '#ffffff',
  'ink': '#1c2126',
  'soft': '#5b646d',
  'rule': '#e2e3de',
  'accent': '#2a6baf',
  's0': '#2b6cb0',
  's1': '#d9663b',
  's2': '#2f9e6e',
  's3': '#a8479f',
  's4': '#b58a16',
  's5': '#4aa3c7',
  's6': '#c2455a',
  's7': '#6b6f7b',
  'training': '#1b6a75',
  'density': '#5d4c93',
  'ranking': '#b9708f',
  'compile': '#8f9a4f',
  'init': '#bdb5a4',
  'checkpoint': '#85644a',
  'waiting': '#d8bf45',
  'rewards': '#8fc3a5',
  'rebuilding': '#e2a183',
  'lost': '#3c4147',
  'rule0': '#0f8f8a',
  'rule1': '#a32a5c',
  'rule2': '#7a7f1c',
  'first': '#9aa3ad',
  'turning': '#7d6bc4',
  'last': '#20153f',
}

DARK: Mapping[str, str] = {
  'paper': '#14171a',
  'card': '#1b1f24',
  'ink': '#e8eaec',
  'soft': '#9aa4ae',
  'rule': '#2d333a',
  'accent': '#7fb3e6',
  's0': '#6aa9e9',
  's1': '#f08a5d',
  's2': '#5cc795',
  's3': '#d27fca',
  's4': '#d8b24a',
  's5': '#7cc9e6',
  's6': '#ea7488',
  's7': '#a5abb8',
  'training': '#4fb3c1',
  'density': '#a391dd',
  'ranking': '#dd9cb8',
  'compile': '#bcc778',
  'init': '#8c8576',
  'checkpoint': '#b48f70',
  'waiting': '#eedb78',
  'rewards': '#a9d8bd',
  'rebuilding': '#f0bda4',
  'lost': '#d7dbe0',
  'rule0': '#3fc9c2',
  'rule1': '#e5699b',
  'rule2': '#c5ca55',
  'first': '#6d7681',
  'turning': '#a99bea',
  'last': '#f1edff',
}

# Colours that tell runs apart: s0, s1 and so on.
SERIES = tuple(name for name in LIGHT if name[0] == 's' and name[1:].isdigit())

# The rules of debiasing, beside runs.
RULES = ('rule0', 'rule1', 'rule2')

# No kind of work, and no epoch, looks like a run; work that bears two names
# looks alike wherever it is shown.
KINDS: Mapping[str, str] = {
  'train': 'training',
  'rank': 'ranking',
  'data wait': 'waiting',
}


# Smaller values are darker, on paper and on screens.
SCALE = 'viridis'


def name_of(colour: int | str) -> str:
  """Names the colour of a run by its number, or of what has a name itself."""
  if isinstance(colour, int):
    return SERIES[colour % len(SERIES)]
  name = KINDS.get(colour, colour)
  return name if name in LIGHT else 'soft'


def series(colour: int | str) -> str:
  """The colour as a figure is drawn with it."""
  return LIGHT[name_of(colour)]
