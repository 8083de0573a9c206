"""The words that synthetic items are told in."""

TOPICS = (
    "oven sauce recipe butter garlic kitchen pasta simmer spice dough roast flavour",
    "galaxy telescope orbit comet planet nebula rocket lunar gravity astronaut cosmos star",
    "goal striker stadium penalty league referee midfield coach tackle keeper season derby",
    "garden seedling compost prune orchard tulip soil greenhouse hedge bloom shovel harvest",
    "jazz saxophone trumpet swing melody quartet drummer improvise bass chord ballad vinyl",
    "chess gambit bishop rook checkmate opening endgame pawn knight castling grandmaster blitz",
    "sail harbour anchor regatta keel mast voyage tide captain rudder lagoon schooner",
    "empire dynasty treaty medieval archive siege emperor parchment crusade monarch relic chronicle",
)
# By level: plain, alluring, lurid; and poor, decent, excellent.
BAIT = (
    ("simple", "ordinary", "brief"),
    ("surprising", "curious", "lively"),
    ("shocking", "unbelievable", "outrageous"),
)
QUALITY = (
    ("sloppy", "shallow", "muddled"),
    ("decent", "adequate", "fair"),
    ("masterful", "profound", "brilliant"),
)
FILLER = tuple(
    "the with about from into over under every little story guide look part other long some near then".split()
)
SYLLABLES = tuple("ba ke li mo nu ra se ti vo zu pa de fi go hu".split())


def topic_words(topics: int) -> list[list[str]]:
    """Twelve words for each topic; from the ninth topic on they are made up of syllables, different for each."""
    found = [text.split() for text in TOPICS[:topics]]
    for topic in range(len(TOPICS), topics):
        numbers = [topic * 12 + n for n in range(12)]
        found.append(["".join(SYLLABLES[number // 15**p % 15] for p in range(4)) + "x" for number in numbers])
    return found
