"""Takes a page apart."""

import html.parser


class Elements(html.parser.HTMLParser):
  """Tags with their attributes, and all text outside of scripts and style."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.texts, self.open = [], [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ('meta', 'br'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] not in ('script', 'style'):
      self.texts.append(data)

  @property
  def view(self):
    """The part of the drawing that a page shows."""
    (view,) = (a['viewbox'] for tag, a in self.tags if tag == 'svg')
    return view

  @property
  def text(self):
    return ' '.join(''.join(self.texts).split())
