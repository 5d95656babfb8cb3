"""Numbers in sentences."""


def of_bytes(size: int) -> str:
  """Writes a size, in MB from a megabyte on and in kB below.

  >>> of_bytes(2_340_000), of_bytes(45_600)
  ('2.3 MB', '46 kB')
  """
  return f'{size / 1e6:.1f} MB' if size >= 1e6 else f'{size / 1e3:.0f} kB'


def counted(number: int, one: str, many: str | None = None) -> str:
  """Writes a number with the noun that belongs to it.

  Args:
    number: how many.
    one: the noun of one.
    many: that of any other number; None: with an s.

  >>> counted(1, 'file'), counted(1200, 'image'), counted(0, 'class', 'classes')
  ('1 file', '1,200 images', '0 classes')
  """
  return f'{number:,} {one if number == 1 else many or one + "s"}'
