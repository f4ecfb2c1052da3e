"""The second language can be read back."""

from __future__ import annotations

from string import ascii_letters

from hypothesis import given
from hypothesis import strategies as st

from plumbline.worlds import Cipher


@given(st.text(), st.integers(0, 50))
def test_decode_inverts_encode(text: str, seed: int) -> None:
    cipher = Cipher(seed)
    assert cipher.decode(cipher.encode(text)) == text


def test_no_letter_stays_and_the_rest_does() -> None:
    image = Cipher(3).encode(ascii_letters)
    assert sorted(image) == sorted(ascii_letters)
    assert all(a != b for a, b in zip(ascii_letters, image, strict=True))
    assert Cipher(3).encode("12, 3.") == "12, 3."
    assert Cipher(3).encode("Ab") == Cipher(3).encode("ab").capitalize()
    assert Cipher(0).encode("abc") != Cipher(1).encode("abc")
