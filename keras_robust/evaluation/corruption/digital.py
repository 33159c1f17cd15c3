"""Digital corruptions; see `noise` for the arguments."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy import ndimage


def contrast(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Moves values toward the mean of their channel."""
    del random
    keep = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    mean = x.mean(axis=(1, 2), keepdims=True)
    return (x - mean) * keep + mean


def elastic_transform(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Moves three points at random, the image along with them, and then each pixel."""
    amount, sigma, affine = (
        (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03),
    )[severity - 1]  # fmt: skip
    size = min(x.shape[1:3])
    middle, third = np.array(x.shape[1:3]) // 2, size // 3
    corners = middle + third * np.array([[1, 1], [1, -1], [-1, -1]])
    grid = np.stack(np.meshgrid(*map(np.arange, x.shape[1:3]), indexing="ij"))
    result = np.empty_like(x)
    for image, pixels in enumerate(x):
        moved = corners + random.uniform(-affine * size, affine * size, corners.shape)
        # The map from the moved points back to the corners: `[row, column, 1] @ back`.
        back = np.linalg.lstsq(np.column_stack([moved, np.ones(3)]), corners, rcond=None)[0]
        places = np.tensordot(back[:2].T, grid, 1) + back[2][:, None, None]
        noise = random.uniform(-1, 1, grid.shape)
        blurred = ndimage.gaussian_filter(
            noise, (0, sigma * size, sigma * size), mode="reflect", truncate=3
        )
        places = places + amount * size * blurred
        for channel in range(x.shape[3]):
            result[image, :, :, channel] = ndimage.map_coordinates(
                pixels[:, :, channel], places, order=1, mode="mirror"
            )
    return result


def pixelate(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Shrinks the image by averaging over boxes, and enlarges it again."""
    del random
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    for axis in (1, 2):
        extent = x.shape[axis]
        small = max(int(extent * share), 1)
        down, up = _boxes(extent, small), _boxes(small, extent)
        x = np.moveaxis(np.tensordot(up @ down, x, (1, axis)), 0, axis)
    return x


def _boxes(source: int, target: int) -> np.ndarray:
    """The matrix of box resampling: by which part each source pixel covers a target pixel."""
    edges = np.arange(target + 1) * source / target
    if target > source:  # the nearest pixel
        return np.eye(source)[((edges[:-1] + edges[1:]) / 2).astype(int)]
    place = np.arange(source)
    covered = np.minimum(edges[1:, None], place + 1) - np.maximum(edges[:-1, None], place)
    covered = np.maximum(covered, 0)
    return covered / covered.sum(axis=1, keepdims=True)


def jpeg_compression(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Compresses each image as JPEG; channels that are not red, green and blue one by one."""
    del random
    quality = (80, 65, 58, 50, 40)[severity - 1]
    in_color = x.shape[3] in (1, 3)
    images = x if in_color else np.moveaxis(x, 3, 1).reshape(-1, *x.shape[1:3], 1)
    bytes_ = tf.cast(tf.round(255 * np.clip(images, 0, 1)), tf.uint8)
    found = [tf.io.decode_jpeg(tf.io.encode_jpeg(one, quality=quality)).numpy() for one in bytes_]
    images = np.stack(found) / 255
    if in_color:
        return images
    return np.moveaxis(images.reshape(len(x), x.shape[3], *x.shape[1:3]), 1, 3)
