"""A slice of a BERT folder: one layer of few features, to see whether the benchmark runs."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

WIDTH, HEADS, INNER = 32, 2, 64


def slice_of(weights: Path, folder: Path) -> Path:
    """The folder `folder` with the first layer of `weights`, its first features alone."""
    if folder.exists():
        return folder
    shutil.copytree(weights, folder)
    config = json.loads((folder / "config.json").read_text())
    cuts = {config["hidden_size"]: WIDTH, config["intermediate_size"]: INNER}
    config |= {"hidden_size": WIDTH, "intermediate_size": INNER, "num_attention_heads": HEADS, "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(config))
    pooling = folder / "1_Pooling" / "config.json"
    told = json.loads(pooling.read_text())
    pooling.write_text(json.dumps({**told, "word_embedding_dimension": WIDTH}))
    kept = {}
    for name, tensor in load_file(weights / "model.safetensors").items():
        if ".layer." in name and ".layer.0." not in name:
            continue
        for axis, size in enumerate(tensor.shape):
            if size in cuts and not (axis == 0 and tensor.ndim == 2 and "embeddings" in name):
                tensor = tensor.take(range(cuts[size]), axis)
        kept[name] = np.ascontiguousarray(tensor)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
