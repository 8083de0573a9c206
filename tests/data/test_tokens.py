"""Vocabularies from texts and from folders, and the cache of token ids."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Library

from mobjrec.data import tokens
from mobjrec.data.tokens import Ragged, Tokenizer, doubts, pretrained, tokenise, trained
from mobjrec.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "fixtures" / "bert-tiny"
EXPECTED = json.loads((TINY / "expected.json").read_text())
STRINGS = np.dtypes.StringDType()
TEXTS = np.array(["a red bus", "a boat", "", "the red, red soup", "一只红色的船", "a red bus"], STRINGS)
ids_of = {"c": 7, "s": 8, "?": 1}


def counting(unknown=1):
    """A tokeniser of one token a letter, and the texts that it was asked for."""
    seen = []

    def encode_batch(texts):
        seen.extend(texts)
        return [[ids_of.get(letter, ord(letter) % 90 + 9) for letter in text] for text in texts]

    return Tokenizer(encode_batch, 7, 8, unknown, 100, "letters", lambda folder: None), seen


def rows(ragged: Ragged):
    return [ragged.token[a:b].tolist() for a, b in zip(ragged.start[:-1], ragged.start[1:], strict=True)]


def test_a_folders_ids_are_those_of_transformers():
    assert pretrained(str(TINY))(TEXTS).encode_batch(EXPECTED["texts"]) == EXPECTED["ids"]


def test_ids_of_real_chinese_captions_are_those_of_transformers(shared):
    with (shared / "data/fixtures/kuairec-captions/kuairec_caption_category.csv").open(
        encoding="utf-8", newline=""
    ) as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    found = pretrained(str(TINY))(TEXTS).encode_batch(captions)
    assert len(found) == 50 and sum(map(len, found)) > 500
    assert hashlib.sha256(json.dumps(found).encode()).hexdigest() == EXPECTED["captions_sha256"]


def test_padding_and_truncation_of_a_folder_are_switched_off(tmp_path):
    pretrained(str(TINY))(TEXTS).save(tmp_path)
    library = Library.from_file(str(tmp_path / "tokenizer.json"))
    library.enable_padding(length=40)
    library.enable_truncation(3)
    library.save(str(tmp_path / "tokenizer.json"))
    assert pretrained(str(tmp_path))(TEXTS).encode_batch(EXPECTED["texts"]) == EXPECTED["ids"]


def test_a_saved_tokeniser_is_the_same_again(tmp_path):
    for tokenizer in (trained(200)(TEXTS), pretrained(str(TINY))(TEXTS)):
        tokenizer.save(tmp_path)
        again = pretrained(str(tmp_path))(TEXTS)
        assert again[1:6] == tokenizer[1:6]
        assert again.encode_batch(TEXTS.tolist()) == tokenizer.encode_batch(TEXTS.tolist())


@pytest.mark.parametrize("settings, text, same", [
    ({"do_lower_case": False}, "Red", False),
    ({"do_lower_case": True}, "Red", True),
    ({"strip_accents": False}, "réd", False),
    ({"tokenize_chinese_chars": False}, "红色", False),
])  # fmt: skip
def test_a_vocabulary_file_is_read_with_its_settings(tmp_path, settings, text, same):
    shutil.copy(TINY / "vocab.txt", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    plain, found = pretrained(str(TINY))(TEXTS), pretrained(str(tmp_path))(TEXTS)
    assert (found.encode_batch([text]) == plain.encode_batch([text])) is same
    assert (found.fingerprint == plain.fingerprint) is same


@pytest.mark.parametrize(
    "file, content, said",
    [
        ("other.txt", "", "neither tokenizer.json nor vocab.txt"),
        ("tokenizer.json", "{", "no tokeniser that can be read"),
        ("vocab.txt", "[PAD]\n[UNK]\nred\n", r"no \[CLS\], \[SEP\]: it is not of BERT type"),
    ],
)
def test_a_folder_without_a_bert_tokeniser_is_named(tmp_path, file, content, said):
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=said):
        pretrained(str(tmp_path))(TEXTS)


def test_a_vocabulary_holds_every_character_and_the_most_frequent_words():
    tokenizer = trained(200)(TEXTS)
    # 5 specials, 18 characters at the start and inside of words, and red, bus, boat, soup, the.
    assert tokenizer.size == 5 + 2 * 18 + 5
    assert [len(ids) for ids in tokenizer.encode_batch(["red bus boat soup the", "船色", "sub"])] == [5, 2, 3]
    letters = sorted(set("".join(TEXTS.tolist())) - {" "})
    assert len({tuple(ids) for ids in tokenizer.encode_batch(letters)} - {(tokenizer.unknown,)}) == 18


def test_rarer_words_are_spelled_and_foreign_characters_unknown():
    many = np.array(["red"] * 9 + ["bus"] * 5 + [f"x{a}{b}" for a in "abcdefg" for b in "hijk"], STRINGS)
    tokenizer = trained(64)(many)
    counts = {word: len(tokenizer.encode_batch([word])[0]) for word in ("red", "bus", "xgk", "der")}
    assert counts == {"red": 1, "bus": 1, "xgk": 3, "der": 3}
    assert tokenizer.encode_batch(["ж"]) == [[tokenizer.unknown]]


def test_where_not_all_characters_fit_the_most_frequent_stay():
    characters = [chr(0x4E00 + n) for n in range(100)]
    texts = np.array([c * (n + 1) for n, c in enumerate(characters)], STRINGS)
    tokenizer = trained(65)(texts)
    unknown = [ids == [tokenizer.unknown] for ids in tokenizer.encode_batch(characters)]
    assert tokenizer.size == 65 and unknown == [True] * 70 + [False] * 30


@pytest.mark.parametrize("lowercase, same", [(True, True), (False, False)])
def test_case_is_kept_where_asked(lowercase, same):
    encode = trained(200, lowercase)(np.array(["Red red bus Bus"], STRINGS)).encode_batch
    assert (encode(["Red"]) == encode(["red"])) is same


def test_no_texts_make_a_vocabulary_of_specials():
    tokenizer = trained()(np.array([], STRINGS))
    assert tokenizer.size == 5 and tokenizer.encode_batch(["", "a"]) == [[], [tokenizer.unknown]]


def test_a_vocabulary_too_small_is_refused():
    with pytest.raises(UserError, match=r"tokenizer\.size is 63; it must be at least 64"):
        trained(63)


PROGRAM = """
import numpy as np
from mobjrec.data.tokens import trained
texts = np.array([f"{a} {b}{a} 红{b}" for a in "abcdefgh" for b in "ijklmn"], np.dtypes.StringDType())
print(trained(90)(texts).fingerprint)
"""


def test_the_same_texts_give_the_same_vocabulary_in_any_process_and_order():
    def run(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True).stdout

    first = run("1")
    assert len(first.strip()) == 32 and run("2") == first
    assert trained(90)(TEXTS).fingerprint == trained(90)(TEXTS[::-1]).fingerprint
    assert trained(90)(TEXTS).fingerprint != trained(90)(TEXTS[:3]).fingerprint


def test_ragged_ids_are_the_tokenisers_own_cut_at_the_limit(tmp_path):
    tokenizer = trained(200)(TEXTS)
    whole = tokenizer.encode_batch(TEXTS.tolist())
    found = tokenise(TEXTS, tokenizer, tmp_path, limit=3)
    assert rows(found) == [ids[:3] for ids in whole]
    assert found.start.dtype == np.int64 and found.token.dtype == np.int32 and isinstance(found.token, np.memmap)
    assert found.cut == pytest.approx(sum(len(ids) > 3 for ids in whole) / 6) and found.unknown == 0.0
    assert tokenizer.cls not in found.token and tokenizer.sep not in found.token


def test_the_shares_of_texts_cut_and_tokens_unknown_are_counted(tmp_path):
    tokenizer, _ = counting()
    found = tokenise(np.array(["ab??", "?a", "", "abcde"], STRINGS), tokenizer, tmp_path, limit=4)
    assert (found.cut, found.unknown) == (0.25, 3 / 10)


def test_a_second_call_reads_what_the_first_wrote(tmp_path):
    tokenizer, seen = counting()
    first = tokenise(TEXTS, tokenizer, tmp_path, limit=4)
    assert seen == TEXTS.tolist()
    again = tokenise(TEXTS.copy(), tokenizer, tmp_path, limit=4)
    assert len(seen) == len(TEXTS) and rows(again) == rows(first)
    assert (again.cut, again.unknown) == (first.cut, first.unknown)


@pytest.mark.parametrize(
    "texts, fingerprint, limit",
    [(["a", "bc"], "letters", 4), (["ab", "c"], "other", 4), (["ab", "c"], "letters", 5), (["c", "ab"], "letters", 4)],
)
def test_other_texts_settings_or_limits_are_other_files(tmp_path, texts, fingerprint, limit):
    tokenizer, seen = counting()
    tokenise(np.array(["ab", "c"], STRINGS), tokenizer, tmp_path, 4)
    del seen[:]
    tokenise(np.array(texts, STRINGS), tokenizer._replace(fingerprint=fingerprint), tmp_path, limit)
    assert seen == texts and len(list(tmp_path.iterdir())) == 2


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["about.json", "start.npy", "token.npy"])
@pytest.mark.parametrize(
    "damage", [cut_short, flip, Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_text("[]")]
)
def test_a_damaged_file_is_made_anew(tmp_path, name, damage):
    tokenizer, seen = counting()
    wanted = rows(tokenise(TEXTS, tokenizer, tmp_path, 4))
    (folder,) = tmp_path.iterdir()
    damage(folder / name)
    assert rows(tokenise(TEXTS, tokenizer, tmp_path, 4)) == wanted
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    del seen[:]
    assert rows(tokenise(TEXTS, tokenizer, tmp_path, 4)) == wanted and not seen


def test_a_run_that_dies_while_it_writes_leaves_nothing(tmp_path):
    def dies(texts):
        raise KeyboardInterrupt

    tokenizer, _ = counting()
    with pytest.raises(KeyboardInterrupt):
        tokenise(TEXTS, tokenizer._replace(encode_batch=dies), tmp_path, 4)
    assert list(tmp_path.iterdir()) == []
    assert len(rows(tokenise(TEXTS, tokenizer, tmp_path, 4))) == len(TEXTS)


def test_runs_that_write_the_same_at_once_all_have_it(tmp_path):
    tokenizer, _ = counting()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: rows(tokenise(TEXTS, tokenizer, tmp_path, 4)), range(16)))
    assert all(one == found[0] for one in found) and len(list(tmp_path.iterdir())) == 1


def test_texts_are_tokenised_in_chunks(tmp_path, monkeypatch):
    tokenizer, _ = counting()
    sizes = []

    def encode_batch(texts):
        sizes.append(len(texts))
        return tokenizer.encode_batch(texts)

    monkeypatch.setattr(tokens, "CHUNK", 4)
    found = tokenise(TEXTS, tokenizer._replace(encode_batch=encode_batch), tmp_path / "chunks", 4)
    monkeypatch.undo()
    assert sizes == [4, 2]
    assert rows(found) == rows(tokenise(TEXTS, tokenizer, tmp_path / "whole", 4))


def test_a_long_text_is_cut_before_it_is_tokenised(tmp_path):
    tokenizer, seen = counting()
    found = tokenise(np.array(["a" * 100_000, "b"], STRINGS), tokenizer, tmp_path, limit=5)
    assert max(map(len, seen)) == 160 and np.diff(found.start).tolist() == [5, 1] and found.cut == 0.5


def test_a_million_letters_without_a_space_are_one_unknown_word_and_said(tmp_path):
    tokenizer = trained(100)(TEXTS)
    found = tokenise(np.array(["x" * 1_000_000, "red bus"], STRINGS), tokenizer, tmp_path, limit=8)
    assert rows(found)[0] == [tokenizer.unknown] and (found.cut, found.unknown) == (0.5, 1 / 3)
    assert doubts(found, "item texts", "batch.item_row") == [
        "item texts: 50.0% are longer than batch.item_row and are cut there",
        "item texts: 33.3% of the tokens are unknown to the tokeniser; take one that knows the script and the words of "
        "these texts",
    ]


@pytest.mark.parametrize("cut, unknown, said", [(0.0, 0.2, 0), (0.0, 0.21, 1), (0.01, 0.0, 1), (1.0, 1.0, 2)])
def test_what_is_cut_is_always_told_and_what_is_unknown_beyond_a_fifth(cut, unknown, said):
    assert len(doubts(Ragged(np.zeros(1, int), np.zeros(0, int), cut, unknown), "texts", "row")) == said


def test_a_vocabulary_with_gaps_is_as_large_as_its_largest_id(tmp_path):
    # A word that stands there twice leaves its first id without a token.
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "bus", "red"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tokenizer = pretrained(str(tmp_path))(TEXTS)
    assert tokenizer.encode_batch(["red"]) == [[7]] and tokenizer.size == 8


@pytest.mark.parametrize("name", ["cache", "cache/tokens"])
def test_a_cache_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("a file")
    with pytest.raises(UserError, match=r"cannot be written: .*; name another cache folder with MOBJREC_CACHE"):
        tokenise(TEXTS, counting()[0], tmp_path / "cache" / "tokens", 4)


@pytest.mark.parametrize("texts", [["", ""], []])
def test_nothing_to_tokenise_is_no_tokens(tmp_path, texts):
    for _ in range(2):
        found = tokenise(np.array(texts, STRINGS), trained()(TEXTS), tmp_path, 4)
        assert rows(found) == [[]] * len(texts) and (found.cut, found.unknown) == (0.0, 0.0)


@pytest.mark.parametrize("wrong", ["\ud800", None, float("nan"), 3, b"red"])
def test_what_is_no_text_is_named_with_its_row(tmp_path, wrong):
    tokenizer, _ = counting()
    with pytest.raises(UserError, match=r"row 2 of the texts is .*; replace or leave it empty"):
        tokenise(np.array(["a", "b", wrong], object), tokenizer, tmp_path, 4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["\0", "🙂", "مرحبا", "x" * 5000, "   ", "\u200b", "[SEP]"])
def test_odd_texts_have_ids_within_the_vocabulary(tmp_path, text):
    tokenizer = trained(100)(TEXTS)
    found = tokenise(np.array([text], STRINGS), tokenizer, tmp_path, 64)
    assert found.start[-1] <= 64 and all(0 <= token < tokenizer.size for token in found.token.tolist())
