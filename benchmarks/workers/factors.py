"""Matrix factorisation by RecBole's BPR and its trainer, or by implicit's: an epoch a line, or an evaluation a line."""

import os
import sys
from pathlib import Path

import numpy as np
import serving

GIVEN = serving.spec()
# RecBole reads the command line for itself.
sys.argv = sys.argv[:1]


def dataset(folder: Path, data: dict[str, np.ndarray]) -> None:
    """The splits as RecBole's files."""
    place = folder / "given"
    place.mkdir(exist_ok=True)
    for name in ("train", "valid", "test"):
        rows = "\n".join(f"{user}\t{item}" for user, item in data[name].tolist())
        (place / f"given.{name}.inter").write_text(f"user_id:token\titem_id:token\n{rows}\n", encoding="utf-8")


def recbole(given: dict, data: dict[str, np.ndarray]) -> None:
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.data.interaction import Interaction
    from recbole.model.general_recommender import BPR
    from recbole.trainer import Trainer

    torch.set_num_threads(os.cpu_count())
    folder = Path(given["folder"])
    dataset(folder, data)
    settings = {
        "data_path": str(folder),
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "train_batch_size": given["batch"],
        "eval_batch_size": given["eval_batch"],
        "embedding_size": given["width"],
        "learning_rate": 1e-3,
        "train_neg_sample_args": {
            "distribution": "uniform",
            "sample_num": 1,
            "alpha": 1.0,
            "dynamic": False,
            "candidate_num": 0,
        },
        "eval_args": {
            "split": {"RS": [8, 1, 1]},
            "order": "RO",
            "group_by": "user",
            "mode": {"valid": "full", "test": "full"},
        },
        "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision"],
        "topk": [10],
        "valid_metric": "MRR@10",
        "use_gpu": False,
        "gpu_id": "",
        "show_progress": False,
        "state": "ERROR",
        "checkpoint_dir": str(folder / "saved"),
    }
    config = Config(model="BPR", dataset="given", config_dict=settings)
    made = create_dataset(config)
    train, _, test = data_preparation(config, made)
    model = BPR(config, train.dataset)
    users, items = (made.token2id(f"{side}_id", np.array([str(n) for n in known])) for side, known in _met(data))
    with torch.no_grad():
        for table, rows, (side, known) in zip(
            (model.user_embedding, model.item_embedding), (users, items), _met(data), strict=True
        ):
            table.weight[torch.from_numpy(np.asarray(rows))] = torch.from_numpy(data[f"{side}_vectors"][known])
    who, good, bad = data["pairs"].T
    ids = {"user_id": ("user_id", who), "item_id": ("item_id", good), "neg_item_id": ("item_id", bad)}
    first = {
        name: torch.from_numpy(made.token2id(field, np.array([str(n) for n in values])))
        for name, (field, values) in ids.items()
    }
    with torch.no_grad():
        # Ours is the mean over lists, of which those whose draw was an item of the user's have nothing to say.
        loss = float(model.calculate_loss(Interaction(first))) * len(who) / int(data["lists"])
    trainer = Trainer(config, model)
    about = {"loss": loss, "versions": serving.versions("recbole", "torch", "numpy")}
    if given["work"] == "epochs":
        epoch = iter(range(1 << 30))
        count = len(data["train"])

        def work() -> dict:
            lost = trainer._train_epoch(train, next(epoch), show_progress=False)
            return {"count": count, "loss": float(lost)}

        if given["warm"]:
            work()
    else:

        def work() -> dict:
            found = trainer.evaluate(test, load_best_model=False, show_progress=False)
            return {"count": len(np.unique(data["test"][:, 0])), "metrics": {k: float(v) for k, v in found.items()}}

        about["metrics"] = work()["metrics"]
    serving.ready(**about)
    serving.told(work)


def _met(data: dict[str, np.ndarray]) -> tuple:
    every = np.concatenate([data[name] for name in ("train", "valid", "test")])
    return ("user", np.unique(every[:, 0])), ("item", np.unique(every[:, 1]))


def of_implicit(given: dict, data: dict[str, np.ndarray]) -> None:
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from scipy.sparse import csr_matrix

    users, items = data["user_vectors"].shape[0], data["item_vectors"].shape[0]
    ones = np.ones(len(data["train"]), np.float32)
    matrix = csr_matrix((ones, (data["train"][:, 0], data["train"][:, 1])), (users, items))
    model = BayesianPersonalizedRanking(
        factors=given["width"], iterations=1, num_threads=os.cpu_count(), random_state=0
    )

    def work() -> dict:
        model.fit(matrix, show_progress=False)
        return {"count": len(ones)}

    work()
    serving.ready(versions=serving.versions("implicit", "numpy", "scipy"))
    serving.told(work)


if __name__ == "__main__":
    with np.load(GIVEN["data"]) as file:
        given_data = {name: file[name] for name in file.files}
    {"recbole": recbole, "implicit": of_implicit}[GIVEN["whose"]](GIVEN, given_data)
