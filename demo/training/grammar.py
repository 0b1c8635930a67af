"""Sentences of a closed vocabulary of common English words, and a few German ones.

The same random state gives the same sentence. Templates sound like a call centre or a meeting.
"""

import random
import re
from collections.abc import Callable


def listed(text: str) -> list[str]:
    """Words, or phrases where the text has bars: listed("a few|words") -> ["a few", "words"]."""
    return text.split("|") if "|" in text else text.split()


NAMES = listed("Anna Peter Maria David Laura Thomas Julia Robert Emma Daniel Sarah Michael Olivia James Sophie Martin")
DIGITS = listed("zero one two three four five six seven eight nine")
TENS = listed("ten eleven twelve fifteen twenty thirty forty fifty sixty ninety hundred")
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = listed("January March April June July August October December")
ADJECTIVES = listed(
    "new old big small good bad late early open closed ready broken empty full happy important simple "
    "quick slow cheap expensive different correct wrong green blue red white black cold warm quiet local "
    "final free public strong special"
)
NOUNS = listed(
    "order invoice account contract customer computer network server report meeting project office phone "
    "number address email message letter package payment price bill credit ticket service product window "
    "door table paper water coffee market station train hotel garden doctor teacher student family house "
    "street city school company manager question answer problem system machine update delivery budget "
    "schedule password engine kitchen picture music story weather morning evening weekend summer winter "
    "support team plan test data line list file page room car box book"
)
VERBS = listed(
    "check open close send need want find change cancel confirm repeat move bring buy sell clean fix "
    "finish start stop review sign print update follow discuss answer remember describe prepare"
)
PAST = listed(
    "checked opened closed sent needed wanted found changed cancelled confirmed moved brought bought sold "
    "cleaned fixed finished started reviewed signed printed updated discussed answered prepared lost"
)
PLACES = listed(
    "in the office|at the station|near the hotel|in the kitchen|on the table|behind the door|at home|"
    "in the city|under the window|across the street|at school|in the garden"
)
TIMES = listed(
    "today|tomorrow|yesterday|tonight|soon|again|later|"
    "this morning|next week|last month|before lunch|after the meeting|every day|right now"
)
ADVERBS = listed("really always never often usually probably already quickly slowly only just")
GREETINGS = listed(
    "hello|good morning|good afternoon|thank you|thanks a lot|yes|no|okay|of course|sorry|please wait|"
    "excuse me|that is fine|no problem|exactly|great|sure|goodbye"
)
THINGS = listed("people problems questions orders messages pages boxes cars books")
EXTRA = listed(
    "zero three five six seven nine hello thank please office about because people think maybe another together"
)
# Two of these sound like another word ("red" and "read", "right" and "write"), one is also a month.
AMBIGUOUS = {"red", "right", "march"}
POOL = sorted(
    {
        word.lower()
        for word in DAYS + MONTHS + ADJECTIVES + NOUNS + VERBS + PAST + ADVERBS + TENS + NAMES + EXTRA
        if word.lower() not in AMBIGUOUS
    }
)
CASED = {word.lower(): word for word in NAMES + DAYS + MONTHS}

TEMPLATES = [
    "{name} {past} {the} {time}.",
    "please {verb} {the} {time}.",
    "can you {verb} {the} {place}?",
    "I {adverb} {verb} {some}.",
    "we {past} {the} {place} {time}.",
    "the number is {digits_3_7}.",
    "my phone number is {digits_5_8}.",
    "the {noun} is {adverb} {adjective}.",
    "{greeting}, {name}.",
    "{greeting}.",
    "the price is {amount} dollars.",
    "on {day} {we_they_you} {verb} {the}.",
    "the {noun} was {past} on {day}, {month} {date}.",
    "is {the} {adjective} or {adjective}?",
    "{name} and {name} {verb} {some} {time}.",
    "I think {the} is {adjective}, but {the} is {adjective}.",
    "when will {name} {verb} {the}?",
    "why did {you_they_she_he} {verb} {the} {time}?",
    "there are {amount} {things} {place}.",
    "{she_he} will {verb} {some} because {the} is {adjective}.",
    "{greeting}, this is {name} from the {noun} {group}.",
    "let us {verb} {the} together {time}.",
]

GERMAN = {
    "wer": "der Kunde|die Firma|der Lehrer|die Familie|das Kind|der Arzt|meine Schwester|unser Nachbar",
    "tut": "braucht|kauft|sucht|findet|bezahlt|bringt|schreibt|verkauft",
    "was": "eine Rechnung|ein neues Auto|das alte Haus|einen Brief|zwei Bilder|drei Fenster|die Zeitung|"
    "das Wasser|den Vertrag|einen Tisch",
    "wann": "heute|morgen|gestern|am Montag|am Freitag|im Sommer|jede Woche|nach der Arbeit|um sieben Uhr|jetzt",
    "gruss": "guten Tag|vielen Dank|ja bitte|auf Wiedersehen|das ist gut|keine Ahnung",
}
GERMAN_TEMPLATES = ["{wer} {tut} {wann} {was}.", "{wann} {tut} {wer} {was}.", "{gruss}."]

RANDOM_SHARE = 0.22
"""Share of sentences that are random words: a decoder that guesses from the templates fails on them."""

Draw = Callable[[random.Random], str]


def _one_of(words: list[str]) -> Draw:
    return lambda r: r.choice(words)


def _noun_phrase(determiners: list[str]) -> Draw:
    def draw(r: random.Random) -> str:
        determiner = r.choice(determiners)
        adjective = r.choice(ADJECTIVES) + " " if r.random() < 0.45 else ""
        return f"{determiner} {adjective}{r.choice(NOUNS)}"

    return draw


def _digits(fewest: int, most: int) -> Draw:
    return lambda r: " ".join(r.choice(DIGITS) for _ in range(r.randint(fewest, most)))


def _amount(r: random.Random) -> str:
    compound = ["twenty", "thirty", "forty", "fifty"]
    amounts = [r.choice(TENS), r.choice(DIGITS[2:]), r.choice(compound) + " " + r.choice(DIGITS[1:])]
    return r.choice(amounts)


FIELDS: dict[str, Draw] = {
    "name": _one_of(NAMES),
    "past": _one_of(PAST),
    "verb": _one_of(VERBS),
    "noun": _one_of(NOUNS),
    "adjective": _one_of(ADJECTIVES),
    "adverb": _one_of(ADVERBS),
    "place": _one_of(PLACES),
    "time": _one_of(TIMES),
    "day": _one_of(DAYS),
    "month": _one_of(MONTHS),
    "date": _one_of(TENS[:6]),
    "greeting": _one_of(GREETINGS),
    "things": _one_of(THINGS),
    "group": _one_of(["team", "office", "company", "service"]),
    "we_they_you": _one_of(["we", "they", "you"]),
    "you_they_she_he": _one_of(["you", "they", "she", "he"]),
    "she_he": _one_of(["she", "he"]),
    "the": _noun_phrase(["the", "your", "our", "my"]),
    "some": _noun_phrase(["the", "the", "my", "your", "our", "this", "that", "a"]),
    "digits_3_7": _digits(3, 7),
    "digits_5_8": _digits(5, 8),
    "amount": _amount,
    **{field: _one_of(listed(words)) for field, words in GERMAN.items()},
}


def english(r: random.Random) -> str:
    """One English sentence, with a capital and an end mark: "Please check the old invoice tomorrow."."""
    if r.random() < RANDOM_SHARE:
        words = [r.choice(POOL) for _ in range(r.randint(2, 9))]
        return _capital(" ".join(CASED.get(word, word) for word in words)) + "."
    return _fill(TEMPLATES[r.randrange(len(TEMPLATES))], r)


def german(r: random.Random) -> str:
    """One German sentence: "Der Kunde kauft heute einen Tisch."."""
    return _fill(r.choice(GERMAN_TEMPLATES), r)


def sentence(language: str, r: random.Random) -> str:
    return german(r) if language == "de" else english(r)


def _fill(template: str, r: random.Random) -> str:
    """Fields are drawn from left to right, so that one random state means one sentence."""
    return _capital(re.sub(r"\{(\w+)\}", lambda field: FIELDS[field[1]](r), template))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
