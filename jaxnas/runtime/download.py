"""Fetches files from the network, and checks that they are the right ones.

pooch does not fit: it has no file://, it sends passwords from ~/.netrc, and its
errors would need the wording that they have here.
"""

import hashlib
import http.client
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple

from jaxnas.runtime import environment, progress, words

SCHEMES = ('http', 'https', 'file')
_CHUNK = 2**20
_TIMEOUT_S = 60


class Source(NamedTuple):
  """A public file."""

  url: str
  sha256: str


def check(url: str, sha256: str) -> None:
  """Raises ValueError for what is no usable address, or no sha256."""
  parts = urllib.parse.urlsplit(url)
  if '@' in parts.netloc:
    raise ValueError(
      f'url {environment.without_secrets(url)!r} has a name or a password, '
      'which would not be sent: give one without.'
    )
  if parts.scheme not in SCHEMES:
    raise ValueError(
      f'url {url!r} must start with one of '
      f'{", ".join(f"{scheme}://" for scheme in SCHEMES)}.'
    )
  if len(sha256) != 64 or set(sha256.lower()) - set('0123456789abcdef'):
    raise ValueError(f'sha256 {sha256!r} must be 64 hexadecimal digits.')


def sha256_of(file: Path) -> str:
  with file.open('rb') as content:
    return hashlib.file_digest(content, 'sha256').hexdigest()


def fetch(url: str, sha256: str, file: Path) -> None:
  """Writes a file from the network, with a progress bar, and checks it.

  Raises:
    OSError: there is no connection, it broke, or the disk has no room.
    ValueError: the file has another sha256, or as `check`.
  """
  check(url, sha256)
  digest, count = hashlib.sha256(), 0
  try:
    with (
      urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response,
      file.open('wb') as out,
    ):
      # Not every server tells the length; the sha256 decides anyway.
      length = response.headers['Content-Length']
      expected = None if length is None else int(length)
      label = f'{url.rsplit("/", 1)[-1]}, MiB'
      with progress.bar(label, (expected or 0) // _CHUNK) as advance:
        while chunk := response.read(_CHUNK):
          out.write(chunk)
          digest.update(chunk)
          advance((count + len(chunk)) // _CHUNK - count // _CHUNK, '')
          count += len(chunk)
  except (OSError, ValueError, http.client.HTTPException) as error:
    # urllib's own errors are OSErrors, as those of the disk are.
    raise OSError(
      f'{url} could not be fetched: {error}. Try again, or give --url of a '
      'mirror.'
    ) from error
  if expected is not None and count < expected:
    raise OSError(
      f'{url} was cut short: {count:,} of '
      f'{words.counted(expected, "byte")} came. Try again.'
    )
  if digest.hexdigest() != sha256.lower():
    raise ValueError(
      f'{url} has sha256 {digest.hexdigest()}, not {sha256}: it is damaged or '
      'another file; --sha256 accepts a file that you trust.'
    )
