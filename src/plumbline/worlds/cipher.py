"""A second language: every letter of the first is replaced by another one, the rest stays."""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase

from plumbline.kernels.seeds import rng


class Cipher:
    r"""A letter substitution without fixed points.

    .. math:: \mathrm{decode}(\mathrm{encode}(x)) = x
    """

    def __init__(self, seed: int = 0) -> None:
        # Shifting along one random cycle leaves no letter in place.
        cycle = [ascii_lowercase[i] for i in rng(seed, "cipher").permutation(26)]
        image = dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        lower = "".join(image[letter] for letter in ascii_lowercase)
        self._encode = str.maketrans(ascii_lowercase + ascii_uppercase, lower + lower.upper())
        self._decode = str.maketrans(lower + lower.upper(), ascii_lowercase + ascii_uppercase)

    def encode(self, text: str) -> str:
        """``text`` in the second language."""
        return text.translate(self._encode)

    def decode(self, text: str) -> str:
        """``text`` back in the first language."""
        return text.translate(self._decode)
