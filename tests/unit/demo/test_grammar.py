"""One random state means one sentence, of a closed vocabulary."""

import random

from demo.training import grammar

A_FEW = [
    (grammar.english, 1),
    (grammar.english, 2),
    (grammar.german, 1),
]


def sentences(n: int) -> list[str]:
    return [grammar.english(random.Random(seed)) for seed in range(n)]


def test_the_same_seed_gives_the_same_sentence() -> None:
    assert sentences(200) == sentences(200)


def test_seeds_differ() -> None:
    assert len(set(sentences(200))) > 150


def test_sentences_are_those_of_the_training() -> None:
    """Known answers: a change of the grammar changes the corpus, the tokens and the recordings."""
    assert [sentence(random.Random(seed)) for sentence, seed in A_FEW] == [
        "Evening cheap new.",
        "Please close the ready student soon.",
        "Die Firma bezahlt morgen das Wasser.",
    ]


def test_a_sentence_begins_with_a_capital_and_ends_with_a_mark() -> None:
    for sentence in sentences(500):
        assert sentence[0].isupper()
        assert sentence[-1] in ".?"


def test_the_vocabulary_is_closed() -> None:
    """324 words: what the recogniser knows. More sentences bring no more words."""
    words = {word.strip(".,?").lower() for sentence in sentences(8000) for word in sentence.split()}
    more = {word.strip(".,?").lower() for sentence in sentences(12000)[8000:] for word in sentence.split()}
    assert more <= words
    assert 300 <= len(words) <= 340
