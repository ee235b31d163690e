"""Regions of images that a detector found beforehand, from a safetensors file beside the data.

``regions.safetensors`` holds two tensors for each image id: ``<id>/features``, shape (N, d_v), and
``<id>/boxes``, shape (N, 4), the corners ``x0, y0, x1, y1`` as shares of width and height.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpbert.errors import InputError, reason_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE = "regions.safetensors"
EXPECTED = "<id>/features of shape (N, d) and <id>/boxes of shape (N, 4) as safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """What a detector found in one image.

    Attributes:
        features: Shape: (N, d_v).
        boxes: ``x0, y0, x1, y1`` in [0, 1]. Shape: (N, 4).
    """

    features: NDArray[np.float32]
    boxes: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredRegions:
    """Where the regions of an image are stored; they are read when a batch needs them."""

    path: Path
    id: str

    def load(self) -> Regions:
        """Read them.

        Raises:
            InputError: they are not as the file's format has them.
        """
        import numpy as np

        where = f"{self.path}: {self.id}"
        file = _opened(self.path, _version(self.path))
        try:
            features = file.get_tensor(f"{self.id}/features").astype(np.float32)
            boxes = file.get_tensor(f"{self.id}/boxes").astype(np.float32)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(where, reason_of(error), EXPECTED) from error
        if features.ndim != 2 or boxes.shape != (len(features), 4):
            found = f"features {features.shape} and boxes {boxes.shape}"
            raise InputError(where, found, EXPECTED)
        sound = np.isfinite(features).all() and (boxes >= 0).all() and (boxes <= 1).all()
        if not sound or (boxes[:, :2] > boxes[:, 2:]).any():
            expected = "finite features and boxes x0, y0, x1, y1 within 0 and 1"
            raise InputError(where, "numbers out of range", expected)
        return Regions(features, boxes)


def stored_ids(path: Path) -> frozenset[str]:
    """The ids of the images whose regions a file holds; empty without the file.

    Raises:
        InputError: the file is no safetensors file.
    """
    if not path.is_file():
        return frozenset()
    keys = _opened(path, _version(path)).keys()
    return frozenset(key.removesuffix("/features") for key in keys if key.endswith("/features"))


@lru_cache(maxsize=8)
def _opened(path: Path, version: tuple[int, int]) -> Any:
    """The open file; a file that changed since has another version."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise InputError(path, reason_of(error), EXPECTED) from error


def _version(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(path, reason_of(error), EXPECTED) from error
    return status.st_mtime_ns, status.st_size
