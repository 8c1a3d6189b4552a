"""What may be an image, brought to the few forms that the compiled module takes."""
from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Union

import numpy as np

from ._errors import UsageError

#: An image: a path, the bytes of an image file or a file open for reading them, uint8 pixels (H, W, 3) in RGB, or a PIL image.
ImageLike = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, np.ndarray, Any]

_ORIENTATION = 0x0112  # the EXIF tag


def _is_pil(value: Any) -> bool:
    module = sys.modules.get("PIL.Image")  # nobody has a PIL image without it
    return module is not None and isinstance(value, module.Image)


def _is_file(value: Any) -> bool:
    """Whether it is an open file (io.BytesIO, open(..., "rb"), an upload), which is read to its end."""
    return callable(getattr(value, "read", None)) and not hasattr(value, "__array__")


def _is_one(value: Any) -> bool:
    """Whether a value stands for one image rather than for many."""
    if isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview)) or _is_pil(value) or _is_file(value):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "OUS" and value.ndim in (1, 2, 3)
    # Tensors of other libraries.
    return hasattr(value, "__array__") and np.ndim(value) in (2, 3) and not hasattr(value, "iloc")


def _pixels(array: np.ndarray, name: str) -> np.ndarray:
    """The array where it is uint8 (H, W, 3); else an error that says what to do."""
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
        return array
    advice = ""
    if array.dtype != np.uint8:
        advice = "bring the values to 0 to 255 and call .astype('uint8')"
    elif array.ndim == 3 and array.shape[0] == 3:
        advice = "channels come last: .transpose(1, 2, 0)"
    elif array.ndim == 2 or array.ndim == 3 and array.shape[2] == 1:
        advice = "repeat a grey channel three times: np.repeat(grey.reshape(H, W, 1), 3, axis=2)"
    elif array.ndim == 3 and array.shape[2] == 4:
        advice = "blend transparent pixels with a background, and leave out the fourth channel"
    raise UsageError(f"{name}: expected uint8 pixels (H, W, 3) in RGB, got {array.dtype} "
                     f"{array.shape}{'; ' if advice else ''}{advice}")


def _from_pil(image: Any, name: str) -> np.ndarray:
    """As Graft decodes files: upright, 16 bits reduced to 8, transparent pixels on white."""
    from PIL import Image, ImageOps

    if image.mode in ("F", "I") and image.format != "PNG":
        raise UsageError(f"{name}: an image of mode {image.mode} has no known range of values; convert it to RGB")
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _item(value: Any, name: str) -> Any:
    if isinstance(value, (str, os.PathLike)):
        path = os.fsdecode(value)
        if os.path.isdir(path):
            raise UsageError(f"{name}: {path!r} is a folder; graft.list_images({path!r}) gives the images below it")
        return path
    if _is_file(value) and not _is_pil(value):
        value = value.read()
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise UsageError(f"{name}: a file opened for text; open it with mode 'rb'")
    if isinstance(value, (bytes, bytearray, memoryview)):
        if memoryview(value).nbytes == 0:
            raise UsageError(f"{name}: no bytes; expected those of an image file (a file that was read before: seek(0))")
        return value
    if _is_pil(value):
        return _from_pil(value, name)
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.ndim == 1 and array.dtype == np.uint8:
            return np.ascontiguousarray(array)  # a file's bytes, as np.fromfile reads them
        return _pixels(array, name)
    raise UsageError(f"{name}: expected a path, bytes, a uint8 array (H, W, 3) or a PIL image, got "
                     f"{type(value).__name__}")


def prepare(images: Any) -> tuple[list[Any], bool]:
    """The images as the compiled module takes them, and whether there was one alone, not in a list."""
    if _is_one(images):
        return [_item(images, "the image")], True
    if isinstance(images, Mapping) or not isinstance(images, Iterable) and not hasattr(images, "__array__"):
        raise UsageError("expected an image or a list of images (paths, bytes, uint8 arrays (H, W, 3), PIL "
                         f"images), got {type(images).__name__}")
    if hasattr(images, "iloc"):  # pandas, without importing it
        images = images.to_numpy()
    if isinstance(images, np.ndarray) and images.ndim == 2 and images.shape[1] == 1:
        images = images[:, 0]  # a table with one column, of paths
    return [_item(value, f"images[{i}]") for i, value in enumerate(images)], False


def check_on_error(on_error: str) -> bool:
    """Whether images that cannot be read are left out."""
    if on_error not in ("raise", "nan"):
        raise UsageError(f"on_error: '{on_error}' is not raise or nan")
    return on_error == "nan"
