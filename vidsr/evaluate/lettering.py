"""Letters as pixels, for labels on pictures: FFmpeg's own need fonts that not every machine has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEIGHT", "lettered"]

HEIGHT = 8
"""Of a line, in pixels; the lowest row is for what hangs below."""

_COLUMNS = {
    "ABCDEFGHIJKLM": (
        "7e0909097e7f494949363e414141417f4141413e7f494949417f090909013e4149493a7f0808087f00417f41002040413f017f08142241"
        "7f404040407f020c027f"
    ),
    "NOPQRSTUVWXYZ": (
        "7f020c107f3e4141413e7f090909063e4151215e7f09192946464949493101017f01013f4040403f0f3040300f7f2018207f6314081463"
        "03047804036151494543"
    ),
    "abcdefghijklm": (
        "20545454787f444444383844444428384444447f3854545418087e09090218a4a4a47c7f0404047800447d40004080847d007f10284400"
        "00417f40007c04780478"
    ),
    "nopqrstuvwxyz": (
        "7c040404783844444438fc2424241818242424fc7c080404084854545424043f4444203c4040207c1c2040201c3c4030403c4428102844"
        "1ca0a0a07c4464544c44"
    ),
    "0123456789.,:": (
        "3e5149453e00427f400062514949462141454b311814127f1027454545393c4a4949300101710d033649494936064949291e0060600000"
        "00e06000000000240000"
    ),
    "-_()+/%=?@#! ": (
        "08080808008080808080001c2241000041221c0008083e080860100804036313086463141414141402015909063e415d551e147f147f14"
        "00002f00000000000000"
    ),
}
"""Five columns for each of the characters, two hexadecimal digits a column, its top pixel in the lowest bit."""


def lettered(text: str) -> NDArray[np.bool_]:
    """bool [HEIGHT, 6 * len(text)], true where there is ink; what there is no letter for becomes a question mark."""
    line = np.zeros((HEIGHT, 6 * len(text)), np.bool_)
    for index, character in enumerate(text):
        row = next((row for row in _COLUMNS if character in row), None)
        place = 10 * row.index(character) if row else 10 * "-_()+/%=?@#! ".index("?")
        digits = bytes.fromhex(_COLUMNS[row or "-_()+/%=?@#! "][place : place + 10])
        columns = np.unpackbits(np.frombuffer(digits, np.uint8)[None], axis=0, bitorder="little")
        line[:, 6 * index : 6 * index + 5] = columns
    return line
