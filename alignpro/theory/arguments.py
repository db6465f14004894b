"""Checks of the exact solver's arguments: an error names the argument, the row and the reason."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from alignpro.theory.gibbs import Array

ROW_SUM_TOLERANCE = 1e-9


def reject(name: str, bad: Array, values: Array, reason: str) -> None:
    """Raise ValueError for the first row with a True in ``bad``, the shape of ``values``.

    The rows of a one-dimensional array are its entries, those of more dimensions its last axis.
    """
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        row = ", ".join(str(i) for i in place[: max(1, bad.ndim - 1)])
        raise ValueError(f"{name}: row {row} {reason} ({float(values[place])!r})")


def as_array(name: str, value: ArrayLike, *shapes: tuple[int | None, ...]) -> Array:
    """``value`` as a new float64 array of one of ``shapes`` (None: any length), all finite."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: not a rectangular array of numbers ({error})") from None
    fits = [
        array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape))
        for shape in shapes
    ]
    if not any(fits) or array.size == 0:
        wanted = " or ".join(str(list(shape)).replace("None", "n >= 1") for shape in shapes)
        raise ValueError(f"{name}: shape {list(array.shape)}, expected {wanted}")
    reject(name, ~np.isfinite(array), array, "has an entry that is not finite")
    return array


def distributions(name: str, array: Array, padding: Array | bool = False) -> Array:
    """Rows of ``array`` normalised in place, then read-only; raises ValueError for invalid ones.

    An all-zero row passes where ``padding`` is True.
    """
    reject(name, array < 0, array, "has a negative probability")
    sums = array.sum(axis=-1)
    empty, off = sums == 0, np.abs(sums - 1) > ROW_SUM_TOLERANCE
    # A trailing axis of length 1, so that reject reads each sum as a row of its own.
    for bad, reason in (
        (empty & ~np.asarray(padding), "has no support: it sums to 0"),
        (off & ~empty, f"does not sum to 1 within {ROW_SUM_TOLERANCE}"),
    ):
        reject(name, np.atleast_1d(bad)[..., None], np.atleast_1d(sums)[..., None], reason)
    array /= np.where(sums > 0, sums, 1.0)[..., None]
    array.flags.writeable = False
    return array


def as_number(name: str, value: Any, least: float = 0.0, strict: bool = True) -> float:
    """``value`` as a finite float above ``least`` (or equal to it, unless ``strict``)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: not a number ({value!r})") from None
    if not np.isfinite(number) or number < least or (strict and number == least):
        sign = ">" if strict else ">="
        raise ValueError(f"{name}: must be finite and {sign} {least:g}, got {number!r}")
    return number
