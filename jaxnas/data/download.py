"""Files from the network that are what they should be, or an error."""

import hashlib
import http.client
import urllib.parse
import urllib.request
from pathlib import Path

from jaxnas import progress, runs

SCHEMES = ('http', 'https', 'file')
_CHUNK = 2**20
_TIMEOUT_S = 60


def check(url: str, sha256: str) -> None:
  """Raises ValueError where one of them can't be what it is called."""
  parts = urllib.parse.urlsplit(url)
  if '@' in parts.netloc:
    raise ValueError(
      f'url {runs.without_secrets(url)!r} has a name or a password, which '
      'would not be sent: give one without.'
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
  """Writes the file, with a progress bar, and compares its sha256.

  Raises:
    OSError: no connection, cut short, or no room on the disk.
    ValueError: another sha256, or see `check`.
  """
  check(url, sha256)
  digest, count = hashlib.sha256(), 0
  try:
    with (
      urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response,
      file.open('wb') as out,
    ):
      # A server may keep the length to itself; the sha256 decides anyway.
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
    # OSError holds urllib's own errors and those of the disk.
    raise OSError(
      f'{url} could not be fetched: {error}. Try again, or give --url of a '
      'mirror.'
    ) from error
  if expected is not None and count < expected:
    raise OSError(
      f'{url} was cut short: {count:,} of {expected:,} bytes came. Try again.'
    )
  if digest.hexdigest() != sha256.lower():
    raise ValueError(
      f'{url} has sha256 {digest.hexdigest()}, not {sha256}: it is damaged or '
      'another file; --sha256 accepts a file that you trust.'
    )
