"""``plumbline find``: the catalogue ranked for a need said in plain words."""

from __future__ import annotations

from plumbline.core.declare import Card
from plumbline.core.discover import catalogue


def rank(need: str) -> list[tuple[float, Card]]:
    """Cards by TF-IDF cosine between ``need`` and what each card says; those that share no word are left out.

    Read are the sentence (three times), the name and title (twice), the docstring, the departures and the cost.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    cards = catalogue()
    texts = [" ".join(_words(card)) for card in cards]
    # pieces of words match inflections (hallucinate, hallucination) without a stemmer
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    words = TfidfVectorizer(stop_words="english", sublinear_tf=True)
    scores = sum((v.fit_transform(texts) @ v.transform([need]).T).toarray()[:, 0] for v in (vectors, words))
    return sorted(
        ((float(s), c) for s, c in zip(scores, cards, strict=True) if s > 0.05), key=lambda r: (-r[0], r[1].name)
    )


def _words(card: Card) -> list[str]:
    titles = [card.name.replace("_", " "), card.paper.title if card.paper else ""]
    return [*[card.says] * 3, *titles * 2, card.doc, *card.differs, card.kind.cost, card.room.replace("/", " ")]
