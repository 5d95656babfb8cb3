"""Tables of benchmarks, downloaded or converted to what `--table` reads.

A function leaves alone what is there already, and puts nothing under its final
name before it is complete. The public download and the real single file of
NAS-Bench-201: not run; the tests prepare files of the same format.
"""

from collections.abc import Callable
from pathlib import Path

from jaxnas import spaces
from jaxnas.runtime import download, pickles
from jaxnas.runtime.download import Source
from jaxnas.runtime.once import Conversion, Prepared, npz_once, once
from jaxnas.truth import formats, nats

NAS_BENCH_MACRO = Source(
  'https://raw.githubusercontent.com/xiusu/NAS-Bench-Macro/master/data/'
  'nas-bench-macro_cifar10.json',
  '686dee8363cc21cca8c1f321ad5749454f2d9b9ca5972682e137e539bc522297',
)

_NAS_BENCH_201 = 'nas_bench_201.npz'


def nas_bench_macro(
  dir: Path | str,
  url: str = NAS_BENCH_MACRO.url,
  sha256: str = NAS_BENCH_MACRO.sha256,
) -> Prepared:
  """Fetches NAS-Bench-Macro's table (Su et al. 2021) into a folder.

  Args:
    dir: the folder.
    url: the address of the official table or a copy; http, https or file.
    sha256: the table's, where it is not a copy of the official one.

  Raises:
    OSError: the download or the disk failed.
    ValueError: the file has another sha256, or another file is in its place.
  """
  final = Path(dir) / 'nas-bench-macro_cifar10.json'
  return once(
    final,
    lambda complete, _: download.fetch(url, sha256, complete),
    whole=lambda: download.sha256_of(final) == sha256.lower(),
    otherwise='has another sha256',
  )


def nas_bench_201(
  dir: Path | str, source: Path | str, *, trust_pickle: bool
) -> Prepared:
  """Writes DIR/nas_bench_201.npz, a table with the arrays of `nats.read`.

  Args:
    dir: the folder to write to.
    source: the file NATS-tss-v1_0-3ffb9.pickle.pbz2 or the folder
      NATS-tss-v1_0-3ffb9-simple.
    trust_pickle: must be true, since a pickle can run code.

  Raises:
    OSError: a file is missing, or the disk failed.
    ValueError: a file, or what stands in the npz's place, is not as it must
      be.
  """
  source = Path(source)
  pickles.check_trusted(source, trust_pickle)
  return npz_once(
    Path(dir) / _NAS_BENCH_201,
    ('ops', 'op_names', *formats.COLUMNS.values()),
    lambda: nats.read(source, spaces.get('nas_bench_201')),
  )


# Each name, with the function that prepares it and the file that it fetches.
DOWNLOADS: dict[str, tuple[Callable[..., Prepared], Source]] = {
  'nas_bench_macro': (nas_bench_macro, NAS_BENCH_MACRO)
}
CONVERSIONS = {
  'nas_bench_201': Conversion(
    nas_bench_201, _NAS_BENCH_201, nats.check, nats.TAKEN
  )
}
