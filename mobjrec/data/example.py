"""A small shop made up from a seed: three tables in the layout of one's own data, and the config that reads them."""

import csv
from pathlib import Path

import numpy as np

from mobjrec.errors import UserError

USERS, ITEMS, LISTS, SHOWN = 40, 60, 8, 8
START, HOUR = 1_704_067_200, 3_600
# Topic -> (nouns, adjectives): an item's title and description are drawn from its topic's words.
TOPICS = {
    "garden": (("trowel", "planter", "hose", "seed kit", "pruner"), ("sturdy", "weatherproof", "green")),
    "kitchen": (("kettle", "pan", "knife", "whisk", "teapot"), ("copper", "nonstick", "classic")),
    "travel": (("backpack", "suitcase", "map", "pillow", "adapter"), ("light", "foldable", "rugged")),
    "music": (("ukulele", "headphones", "metronome", "songbook", "drum"), ("warm", "portable", "mellow")),
    "sport": (("racket", "dumbbell", "yoga mat", "jersey", "ball"), ("durable", "grippy", "breathable")),
}
# Up to three of these close a description: descriptions of real shops differ in length.
MORE = (
    "Ships the same day.", "A favourite of beginners and of those who have done this for years.", "Two years of warranty.",
    "Made by hand in a small workshop by the sea.", "Now lighter than before, and easier to clean.",
)  # fmt: skip
CITIES = ("Lyon", "Porto", "Graz", "Turin", "Ghent")

CONFIG = """\
# Your own data in one file: what the columns are, what to learn, how.  mobjrec train {name}
seed: 0
epochs: 3

data:
  use: table
  path: .                  # the folder with the tables: this file's own
  events: events.csv       # one row a shown item: .csv, .tsv, .jsonl (each also .gz) or .parquet
  items: items.csv         # one row an item; leave out to know items by their id alone
  users: users.csv         # one row a user; the same
  columns:                 # the name in your file, for each role
    user: user_id
    item: item_id
    time: time             # Unix seconds, or dates such as 2024-05-31T12:00:00Z; milliseconds need time_unit: ms
    list: list_id          # what was shown together; an empty cell = not known
    position: position     # slot in the list, from 0
    feedback: [click, dwell]   # numbers; an empty cell = not observed
  item_columns:
    {{id: item_id, text: [title, description], categories: [brand, topics], several: [topics], numbers: [price]}}
  user_columns: {{id: user_id, text: [city], categories: [city], numbers: [age]}}
  separator: "|"           # between the values of a cell of `several`
  units: {{dwell: seconds, price: euros, age: years}}

labels:                    # feedback columns are labels under their own names; these are derived
  satisfied: {{use: at_least, of: dwell, value: 30, known: {{after: click}}}}

tokenizer: {{use: trained, size: 2000}}
lists:
  split: {{use: by_time, valid: 0.15, test: 0.15}}
  history: {{of: click, last: 20}}
candidates: {{use: as_logged, size: {shown}}}
batch: {{lists: 32, item_row: 128, user_row: 256}}

model:
  use: ranker
  encoder: {{use: bert, layers: 2, width: 64, heads: 2}}
  user: {{text: "From {{city}}. Clicked: {{history.title}}", ids: [user]}}
  item: {{text: "{{title}}. {{description}}", ids: [item, brand, topics], numbers: [price]}}
  scorer: {{use: mlp}}
objectives:
  click: {{use: single, loss: softmax, label: click}}
  satisfied: {{use: satisfied_click}}
weighting: {{use: static, weights: {{click: 1, satisfied: 1}}}}
optimizer: {{use: adamw, learning_rate: 1e-3}}
evaluate: {{metrics: ["ndcg@5", auc]}}
"""


def example(folder: Path = Path("my_shop"), seed: int = 0) -> Path:
    """Tables events.csv, items.csv, users.csv and own-table.yaml, written into `folder`; the path of the config.

    40 users were shown 8 lists of 8 of 60 items; each user has two favourite topics, clicks there more often and stays
    longer on what is cheap. The same seed writes the same bytes. UserError if one of the four files is there already.
    """
    names = ("events.csv", "items.csv", "users.csv", "own-table.yaml")
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise UserError(f"{folder} holds {', '.join(there)} already; name another folder, nothing was written")
    random = np.random.default_rng(seed)
    items, users = _items(random), _users(random)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "items.csv", ("item_id", "title", "description", "brand", "topics", "price"), items)
    _write(folder / "users.csv", ("user_id", "city", "age"), [row[:3] for row in users])
    header = ("user_id", "item_id", "time", "list_id", "position", "click", "dwell")
    _write(folder / "events.csv", header, _events(random, users, items))
    config = folder / "own-table.yaml"
    config.write_text(CONFIG.format(name=config.as_posix(), shown=SHOWN), encoding="utf-8")
    return config


def _items(random: np.random.Generator) -> list[tuple]:
    rows = []
    for number in range(ITEMS):
        topics = random.choice(list(TOPICS), size=random.integers(1, 3), replace=False).tolist()
        nouns, kinds = TOPICS[topics[0]]
        noun, kind = random.choice(nouns), random.choice(kinds)
        text = f"A {kind} {noun} for {' and '.join(topics)} lovers, model {number + 1}."
        text = " ".join([text, *random.choice(MORE, size=random.integers(0, 4), replace=False)])
        brand = random.choice(["Alder", "Birch", "Cedar", ""])
        rows.append(
            (f"i{number + 1}", f"{kind} {noun}".capitalize(), text, brand, "|".join(topics), random.integers(5, 90))
        )
    return rows


def _users(random: np.random.Generator) -> list[tuple]:
    """(id, city, age, favourite topics); some ages are not known."""
    rows = []
    for number in range(USERS):
        age = "" if random.random() < 0.1 else int(random.integers(18, 80))
        likes = set(random.choice(list(TOPICS), size=2, replace=False).tolist())
        rows.append((f"u{number + 1}", random.choice(CITIES), age, likes))
    return rows


def _events(random: np.random.Generator, users: list[tuple], items: list[tuple]) -> list[tuple]:
    rows = []
    for turn in range(LISTS):
        for number, (user, _, _, likes) in enumerate(users):
            time = START + (turn * USERS + number) * HOUR
            for position, item in enumerate(random.choice(len(items), size=SHOWN, replace=False)):
                name, *_, topics, price = items[item]
                click = int(random.random() < (0.5 if likes & set(topics.split("|")) else 0.08))
                dwell = round(float(random.gamma(2.0, 30.0 if price < 40 else 12.0)), 1) if click else ""
                rows.append((user, name, time, f"l{turn * USERS + number + 1}", position, click, dwell))
    return rows


def _write(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
