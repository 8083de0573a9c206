"""Texts -> token ids, each text once, kept on disk by content."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from mobjrec.cache import find, unwritable
from mobjrec.data.store import key_of
from mobjrec.errors import UserError

__all__ = ["pretrained", "trained"]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CHUNK = 8192  # texts tokenised at a time
# A token is never longer than this many characters on average: a text is cut there before it is tokenised.
CHARACTERS = 32
# More unknown tokens than this share, and little of a text is read.
STRANGE = 0.2
# Another one where the files' meaning changes.
FORMAT = b"2"
FILES = ("start.npy", "token.npy")


class Ragged(NamedTuple):
    """Token ids of N texts: text n is `token[start[n] : start[n + 1]]`.

    start: [N + 1] int64   token: [M] int32, may be memory-mapped   cut: share of texts that were cut
    unknown: share of tokens that the vocabulary has not
    """

    start: np.ndarray
    token: np.ndarray
    cut: float = 0.0
    unknown: float = 0.0


def ragged(sequences: Sequence[Sequence[int]]) -> Ragged:
    """Token sequences, one after the other."""
    start = np.cumsum([0, *(len(one) for one in sequences)])
    return Ragged(start, np.concatenate([[], *sequences]).astype(np.int32))


def ragged_at(texts: Ragged, rows: np.ndarray) -> Ragged:
    """The texts at these rows, in their order."""
    return ragged([texts.token[texts.start[row] : texts.start[row + 1]] for row in rows.tolist()])


class Tokenizer(NamedTuple):
    """encode_batch: texts -> ids without specials   cls, sep, unknown: ids   size: of the vocabulary

    fingerprint: sha256 over vocabulary and settings   save: writes tokenizer.json into a folder
    """

    encode_batch: Callable[[list[str]], list[list[int]]]
    cls: int
    sep: int
    unknown: int
    size: int
    fingerprint: str
    save: Callable[[Path], None]


def trained(size: int = 2000, lowercase: bool = True) -> Callable[[np.ndarray], Tokenizer]:
    """A WordPiece vocabulary of at most `size` tokens from the corpus' own texts.

    Every character (where not all fit, the most frequent ones), then the most frequent words; what is rarer is spelled.
    The same texts give the same vocabulary. UserError for a size below 64.

    The `tokenizers` library splits and encodes but does not choose the pieces: its trainer breaks ties by hash order,
    so three processes gave three vocabularies for the same texts (version 0.23).
    """
    if size < 64:
        raise UserError(f"tokenizer.size is {size}; it must be at least 64")

    def train(texts: np.ndarray) -> Tokenizer:
        normalizer, splitter = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
        counts: Counter[str] = Counter()
        for text in texts.tolist():
            counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
        letters: Counter[str] = Counter()
        for word, count in counts.items():
            letters.update(dict.fromkeys(word, count))
        # Chinese texts may have more characters than there is room.
        kept = sorted(_frequent(letters)[: (size - len(SPECIAL)) // 2])
        pieces = list(SPECIAL) + [piece for letter in kept for piece in (letter, "##" + letter)]
        known = set(pieces)
        pieces += [word for word in _frequent(counts) if word not in known][: size - len(pieces)]
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        library = Library(models.WordPiece(vocabulary, unk_token="[UNK]"))
        library.normalizer, library.pre_tokenizer = normalizer, splitter
        library.decoder = decoders.WordPiece()
        library.add_special_tokens(list(SPECIAL))
        return _wrapped(library)

    return train


def pretrained(weights: str) -> Callable[[np.ndarray], Tokenizer]:
    """The tokeniser of a Hugging Face BERT folder: tokenizer.json, or vocab.txt with tokenizer_config.json.

    weights: the folder, or `minilm`. UserError where it is not there or cannot be read.
    """

    def read(texts: np.ndarray) -> Tokenizer:
        folder = find(weights)
        try:
            if (folder / "tokenizer.json").is_file():
                library = Library.from_file(str(folder / "tokenizer.json"))
            else:
                library = _from_vocabulary(folder)
        except UserError:
            raise
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(f"tokenizer.weights: {folder} holds no tokeniser that can be read: {error}") from error
        # The file may carry padding and truncation of its own (MiniLM's: to 128).
        library.no_padding()
        library.no_truncation()
        return _wrapped(library)

    return read


def tokenise(texts: np.ndarray, tokenizer: Tokenizer, folder: Path, limit: int) -> Ragged:
    """Token ids [texts], without specials, cut at `limit`, from `folder` if these texts were tokenised before.

    The files take their place by one atomic rename; damaged ones are made anew. UserError for what is no text, with its
    row.
    """
    digest = hashlib.sha256(FORMAT + tokenizer.fingerprint.encode() + b"%d" % limit)
    for begin in range(0, len(texts), CHUNK):
        for row, text in enumerate(texts[begin : begin + CHUNK].tolist(), start=begin):
            try:
                data = text.encode()
            except (AttributeError, UnicodeEncodeError):
                raise UserError(
                    f"row {row} of the texts is {text!r}, which is not text; replace or leave it empty"
                ) from None
            digest.update(len(data).to_bytes(8, "little") + data)
    path = folder / digest.hexdigest()[:32]
    return _read(path) or _write(path, texts, tokenizer, limit)


def doubts(tokens: Ragged, what: str, limit: str) -> list[str]:
    """A sentence each where texts are cut, and where more than a fifth of their tokens are unknown.

    what: how the texts are called   limit: the config key that cuts them
    """
    said = [f"{what}: {tokens.cut:.1%} are longer than {limit} and are cut there"] if tokens.cut else []
    if tokens.unknown > STRANGE:
        said.append(
            f"{what}: {tokens.unknown:.1%} of the tokens are unknown to the tokeniser; take one that knows the script "
            "and the words of these texts"
        )
    return said


def publish(tokenizer: Tokenizer, folder: Path, length: int) -> int:
    """Write tokenizer.json, which puts [CLS] and [SEP] around a text, and what transformers reads beside it.

    length: tokens that it cuts a text to   Returns the id that it pads with, 0 where there is no [PAD].
    """
    tokenizer.save(folder)
    path = folder / "tokenizer.json"
    library = Library.from_file(str(path))
    library.post_processor = processors.BertProcessing(("[SEP]", tokenizer.sep), ("[CLS]", tokenizer.cls))
    library.save(str(path))
    named = {f"{name.strip('[]').lower()}_token": name for name in SPECIAL if library.token_to_id(name) is not None}
    # The class that takes tokenizer.json as it stands: BertTokenizer would build its own normaliser from other settings.
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(named, indent=1), encoding="utf-8")
    return library.token_to_id("[PAD]") or 0


def _read(path: Path) -> Ragged | None:
    """What `_write` left at this path; None where there is nothing or it is damaged."""
    try:
        about = json.loads((path / "about.json").read_text())
        if any(_digest(path / name) != about["sha256"][name] for name in FILES):
            return None
        start, token = (np.lib.format.open_memmap(path / name, mode="r") for name in FILES)
        return Ragged(np.asarray(start), token[: start[-1]], about["cut"], about["unknown"])
    except (OSError, ValueError, EOFError, LookupError, TypeError):
        return None


def _write(path: Path, texts: np.ndarray, tokenizer: Tokenizer, limit: int) -> Ragged:
    try:
        _place(path, texts, tokenizer, limit)
    except OSError as error:
        raise unwritable(path.parent, error) from error
    found = _read(path)
    if found is None:
        raise UserError(f"{path}: the tokens just written cannot be read back; is the disk full or failing?")
    return found


def _place(path: Path, texts: np.ndarray, tokenizer: Tokenizer, limit: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as temporary:
        folder = Path(temporary) / path.name
        folder.mkdir()
        about = _fill(folder, texts, tokenizer, limit)
        about["sha256"] = {name: _digest(folder / name) for name in FILES}
        (folder / "about.json").write_text(json.dumps(about))
        # A damaged one is in the way. Another run may have been faster: then its file is as good.
        if path.exists() and _read(path) is None:
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.replace(folder, path)


def _fill(folder: Path, texts: np.ndarray, tokenizer: Tokenizer, limit: int) -> dict[str, Any]:
    """Write start.npy and token.npy chunk by chunk; the shares of texts cut and of tokens unknown."""
    lengths, cut, unknown = np.zeros(len(texts) + 1, np.int64), 0, 0
    raw = folder / "token.raw"
    with raw.open("wb") as file:
        for begin in range(0, len(texts), CHUNK):
            given = texts[begin : begin + CHUNK].tolist()
            encoded = tokenizer.encode_batch([text[: limit * CHARACTERS] for text in given])
            for row, (text, ids) in enumerate(zip(given, encoded, strict=True), start=begin):
                cut += len(ids) > limit or len(text) > limit * CHARACTERS
                kept = np.asarray(ids[:limit], np.int32)
                unknown += int((kept == tokenizer.unknown).sum())
                lengths[row + 1] = len(kept)
                file.write(kept.tobytes())
    start = np.cumsum(lengths)
    np.save(folder / "start.npy", start)
    # An empty file cannot be mapped: one token more than there are is kept.
    token = np.lib.format.open_memmap(folder / "token.npy", "w+", np.int32, (int(start[-1]) + 1,))
    if start[-1]:
        token[:-1] = np.memmap(raw, np.int32, "r")
    token.flush()
    raw.unlink()
    return {"cut": cut / max(len(texts), 1), "unknown": unknown / max(int(start[-1]), 1)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _frequent(counts: Counter[str]) -> list[str]:
    """The keys, most frequent first, in alphabetical order where equally frequent."""
    return sorted(counts, key=lambda key: (-counts[key], key))


def _from_vocabulary(folder: Path) -> Library:
    if not (folder / "vocab.txt").is_file():
        raise UserError(f"tokenizer.weights: {folder} has neither tokenizer.json nor vocab.txt")
    settings = {}
    if (folder / "tokenizer_config.json").is_file():
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    library = Library(models.WordPiece.from_file(str(folder / "vocab.txt"), unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    library.add_special_tokens([token for token in SPECIAL if library.token_to_id(token) is not None])
    return library


def _wrapped(library: Library) -> Tokenizer:
    ids = {name: library.token_to_id(name) for name in ("[CLS]", "[SEP]", "[UNK]")}
    missing = [name for name, number in ids.items() if number is None]
    if missing:
        raise UserError(f"the tokeniser has no {', '.join(missing)}: it is not of BERT type")

    def encode_batch(texts: list[str]) -> list[list[int]]:
        return [found.ids for found in library.encode_batch(texts, add_special_tokens=False)]

    def save(folder: Path) -> None:
        library.save(str(folder / "tokenizer.json"))

    return Tokenizer(
        encode_batch,
        ids["[CLS]"],
        ids["[SEP]"],
        ids["[UNK]"],
        # Ids may have gaps: a table of as many rows as there are tokens would be too short, and jax clamps.
        1 + max(library.get_vocab().values()),
        key_of(library.to_str(), tokenizers.__version__.split(".")[0]),
        save,
    )
