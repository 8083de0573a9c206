"""A `Bert`'s parameters -> a Hugging Face folder, which transformers, sentence-transformers and `pretrained` open."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from mobjrec.models.pretrained import COUNTS, FIXED, LINEAR, NORMS, TABLES, Sizes
from mobjrec.types import Tree


def tensors(params: Tree) -> dict[str, np.ndarray]:
    """{Hugging Face's name: tensor} of an encoder's parameters; the keys' biases, which change no output, as zeros.

    What `pretrained.fill` reads back, bit for bit. An adapter would be merged into `params` before: nothing here knows it.
    """
    found = {f"embeddings.{theirs}.weight": params["embeddings"][ours] for ours, theirs in TABLES.items()}
    found |= _norm("embeddings.LayerNorm", params["embeddings"]["norm"])
    number = 0
    for stack in (params[name] for name in ("lower", "upper") if name in params):
        for layer in range(len(stack["query"]["kernel"])):
            below = f"encoder.layer.{number}"
            for ours, theirs in LINEAR.items():
                kernel = np.asarray(stack[ours]["kernel"][layer])
                found[f"{below}.{theirs}.weight"] = kernel.T
                bias = stack[ours].get("bias")
                found[f"{below}.{theirs}.bias"] = (
                    np.zeros(kernel.shape[1], kernel.dtype) if bias is None else bias[layer]
                )
            for ours, theirs in NORMS.items():
                found |= _norm(f"{below}.{theirs}", {name: part[layer] for name, part in stack[ours].items()})
            number += 1
    return {name: np.ascontiguousarray(tensor) for name, tensor in found.items()}


def _norm(name: str, norm: Tree) -> dict[str, np.ndarray]:
    return {f"{name}.weight": norm["scale"], f"{name}.bias": norm["bias"]}


def write(folder: Path, params: Tree, sizes: Sizes, dropout: float, length: int, padding: int) -> None:
    """config.json, model.safetensors and the files by which sentence-transformers pools; the tokeniser's are not here.

    length: tokens that a text is cut to   padding: the tokeniser's id of it
    """
    config = {
        **FIXED,
        "architectures": ["BertModel"],
        **dict(zip(COUNTS, sizes, strict=False)),
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "pad_token_id": padding,
        "torch_dtype": "float32",
    }
    steps = ["Transformer", "Pooling", *(["Normalize"] if sizes.normalise else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{step}"}
        for n, (step, path) in enumerate(zip(steps, paths, strict=False))
    ]
    pooling = {
        "word_embedding_dimension": sizes.width,
        "pooling_mode_cls_token": sizes.pooling == "cls",
        "pooling_mode_mean_tokens": sizes.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    for path in paths[1 : len(steps)]:
        (folder / path).mkdir()
    for name, content in (
        ("config.json", config),
        ("modules.json", modules),
        ("sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False}),
        ("1_Pooling/config.json", pooling),
    ):
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(save(tensors(params), {"format": "pt"}))
