"""Headers of a safetensors file that lie about its tensors: refused with the file's name, whatever else fits."""

import json
import shutil
from pathlib import Path

import pytest
from flax import nnx

from mobjrec.errors import UserError
from mobjrec.models.bert import bert

TINY = Path(__file__).resolve().parents[1] / "fixtures" / "bert-tiny"
ONE, OTHER = "encoder.layer.0.output.dense.bias", "encoder.layer.1.output.dense.bias"


def overlap(header):
    header[OTHER]["data_offsets"] = header[ONE]["data_offsets"]


def beyond(header):
    header[ONE]["data_offsets"] = [2**40, 2**40 + 96]


def backwards(header):
    header[ONE]["data_offsets"] = header[ONE]["data_offsets"][::-1]


def larger(header):
    header[ONE]["shape"] = [25]


def foreign(header):
    header[ONE]["dtype"] = "object"


def eight_bits(header):
    header[ONE] |= {"dtype": "F8_E4M3", "shape": [96]}


@pytest.mark.parametrize("change", [overlap, beyond, backwards, larger, foreign, eight_bits, "twice", "no json"])
def test_a_header_that_lies_is_refused(change, tmp_path):
    folder = Path(shutil.copytree(TINY, tmp_path / "weights"))
    path = folder / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if callable(change):
        change(header)
        text = json.dumps(header)
    elif change == "twice":
        text = json.dumps(header)[:-1] + f", {json.dumps(ONE)}: {json.dumps(header[OTHER])}}}"
    else:
        text = "{" * size
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + content[8 + size :])
    with pytest.raises(
        UserError, match=r"model\.safetensors .*is damaged|does not hold the weights|damaged or no safetensors"
    ):
        bert(weights=str(folder))(401, 24, nnx.Rngs(0))
