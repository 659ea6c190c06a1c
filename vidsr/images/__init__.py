"""Still pictures in files: single ones, folders, and numbered sequences.

Decoding, encoding, profiles and tags are libvips' work (pyvips, and pillow-heif for HEIC), installed with the extra
`images` and loaded with the first picture.
"""

from vidsr.images.batch import Batch, resolve
from vidsr.images.engines import Engines
from vidsr.images.join import Joining, resolve_joined, run_joined
from vidsr.images.run import run

__all__ = ["Batch", "Engines", "Joining", "resolve", "resolve_joined", "run", "run_joined"]
