"""Pixels and weights as PNG images inside the page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["as_data_uri", "colour_ramp", "weight_images"]

# From the most negative weight over none to the most positive: blue, near-white, orange; distinct for colour-blind
# readers too, and darker towards both ends.
_STOPS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
_COLOURS = np.array([[8, 48, 107], [66, 146, 198], [247, 247, 247], [241, 133, 50], [127, 39, 4]], np.float64)


def as_data_uri(pixels: NDArray[np.uint8]) -> str:
    """Return ``(H, W)`` or ``(H, W, 3)`` pixels as a ``data:`` address that holds a PNG."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def colour_ramp(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values in [−1, 1] as colours of the diverging map, in one more axis of 3."""
    channels = [np.interp(values, _STOPS, _COLOURS[:, k]) for k in range(3)]
    colours: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def weight_images(weight: NDArray[Any], shape: tuple[int, ...]) -> list[NDArray[np.uint8]]:
    """Return the weights of each class as an image of the inputs' shape, all on one scale that is symmetric about 0.

    For grey inputs: blue where ink lowers the score of the class, orange where it raises it. For colour inputs: the
    weight of red, green and blue as a colour, mid-grey for none.
    """
    most = float(np.abs(weight).max()) or 1.0
    relative = np.asarray(weight, np.float64).reshape(-1, *shape) / most
    if len(shape) == 2:
        return [colour_ramp(image) for image in relative]
    return list(np.rint(127.5 + 127.5 * relative).astype(np.uint8))
