"""The text encoder as a Hugging Face folder: read back bit for bit here, and opened by both libraries where they are."""

import json

import jax
import numpy as np
import pytest

from mobjrec import hugging
from mobjrec.data.tokens import pretrained as tokeniser
from mobjrec.errors import UserError
from mobjrec.models import bert, published
from mobjrec.models import pretrained as reader
from mobjrec.models.functional import init
from mobjrec.types import Texts

WORDS = ["simmer roast oven dough", "derby goal", "what nobody has told before: a telescope, a star"]


@pytest.fixture(scope="module")
def folder(tiny_trained, tmp_path_factory):
    made = tmp_path_factory.mktemp("hugging") / "encoder"
    hugging.write(tiny_trained, made)
    return made


def embedded(run, texts):
    """What the run's encoder makes of these texts, one a row."""
    parts = run.parts
    rows = [[parts.feed.cls, *ids[: 32 - 2], parts.feed.sep] for ids in parts.tokenizer.encode_batch(texts)]
    tokens, slot = np.zeros((2, len(rows), 32), np.int32)
    for n, row in enumerate(rows):
        tokens[n, : len(row)], slot[n, : len(row)] = row, 1
    packed = Texts(tokens, np.tile(np.arange(32, dtype=np.int32), (len(rows), 1)), slot, np.ones((len(rows), 1), bool))
    return np.asarray(parts.functions.encode_items(run.params["encoder"], packed))[:, 0]


def test_our_own_reader_opens_the_folder_bit_for_bit(tiny_trained, folder):
    params = tiny_trained.params["encoder"]["both"]
    sizes = reader.read_sizes(str(folder))
    assert sizes == reader.Sizes(1, 16, 2, 64, 32, len(params["embeddings"]["word"]), 1, "mean", False)
    tensors = reader.read_tensors(folder, sizes)
    assert not tensors["encoder.layer.0.attention.self.key.bias"].any()
    back = init(lambda rngs: bert(weights=str(folder))(sizes.vocabulary, 32, rngs))(jax.random.key(0))
    assert jax.tree.structure(back) == jax.tree.structure(jax.tree.map(np.asarray, params))
    jax.tree.map(np.testing.assert_array_equal, back, params)
    again = tokeniser(str(folder))(np.array(WORDS))
    assert again.encode_batch(WORDS) == tiny_trained.parts.tokenizer.encode_batch(WORDS)


def test_frozen_layers_come_before_those_that_train():
    layers = {"kernel": np.arange(2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4), "bias": np.ones((2, 4), np.float32)}
    stack = dict.fromkeys((*reader.LINEAR,), layers) | {
        name: {"scale": np.ones((2, 4)), "bias": np.zeros((2, 4))} for name in reader.NORMS
    }
    upper = jax.tree.map(lambda a: a[:1] + 100, stack)
    top = {name: np.zeros((3, 4)) for name in reader.TABLES} | {"norm": {"scale": np.ones(4), "bias": np.zeros(4)}}
    found = published.tensors({"embeddings": top, "lower": stack, "upper": upper})
    query = [found[f"encoder.layer.{n}.attention.self.query.weight"] for n in range(3)]
    np.testing.assert_array_equal(query, [layers["kernel"][0].T, layers["kernel"][1].T, layers["kernel"][0].T + 100])
    assert "encoder.layer.3.attention.self.query.weight" not in found


def test_what_is_no_bert_is_refused_in_a_sentence(tiny_trained, tmp_path):
    parts = tiny_trained.parts
    silent = tiny_trained._replace(params=tiny_trained.params | {"encoder": {}})
    with pytest.raises(UserError, match="reads no text, so there is no encoder to export; use --format stablehlo"):
        hugging.write(silent, tmp_path / "a")
    config = parts.config.model_copy(
        update={"model": parts.config.model.model_validate({"use": "ranker", "encoder": {"use": "mine:encoder"}})}
    )
    other = tiny_trained._replace(parts=parts._replace(config=config))
    with pytest.raises(
        UserError, match=r"model\.encoder is mine:encoder, which no Hugging Face class is known to compute"
    ):
        hugging.write(other, tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_two_encoders_take_a_folder_each(tiny_trained, tmp_path):
    parts, both = tiny_trained.parts, tiny_trained.params["encoder"]["both"]
    block = dict(parts.config.model.settings)
    block |= {"user_encoder": block["encoder"], "item_encoder": block["encoder"], "encoder": None}
    config = parts.config.model_copy(
        update={
            "model": parts.config.model.model_validate({"use": "ranker"} | json.loads(json.dumps(block, default=dict)))
        }
    )
    two = tiny_trained._replace(
        params=tiny_trained.params | {"encoder": {"user": both, "item": both}}, parts=parts._replace(config=config)
    )
    sizes = hugging.write(two, tmp_path / "two")
    assert {name.split("/")[0] for name in sizes} == {"user", "item"}
    assert reader.read_sizes(str(tmp_path / "two" / "user")).layers == 1


def test_transformers_and_sentence_transformers_say_the_same(tiny_trained, folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    ours = embedded(tiny_trained, WORDS)
    found = pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu").encode(WORDS)
    np.testing.assert_allclose(found, ours, atol=1e-5)
    read = transformers.AutoTokenizer.from_pretrained(folder)(WORDS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        hidden = transformers.AutoModel.from_pretrained(folder)(**read).last_hidden_state
    mask = read["attention_mask"][..., None]
    np.testing.assert_allclose(((hidden * mask).sum(1) / mask.sum(1)).numpy(), ours, atol=1e-5)
