"""sentence-transformers' own trainer with its multiple-negatives loss, as its users write it.

`auc` told: triplets (a user's text, a ticked item, one that was shown beside it), and a line is some seconds of training
and the AUC within the evaluation's lists. Otherwise pairs, and a line is some steps.
"""

import json
import os
from pathlib import Path

import numpy as np
import serving
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import TrainerCallback


class Turns(TrainerCallback):
    """Waits for a line before the work begins and whenever a piece of it is done. steps: of a piece, or seconds"""

    def __init__(self, given: dict, measure=None):
        self.given, self.measure = given, measure
        self.done, self.trained, self.clock = 0, 0.0, None

    def on_step_begin(self, args, state, control, **kwargs):
        if self.clock is None:
            if not serving.waited():
                control.should_training_stop = True
            self.clock = serving.Clock()

    def on_step_end(self, args, state, control, **kwargs):
        # The first step is not counted: the allocator and the kernels' caches are made in it.
        if self.given["warm"] and state.global_step == 1 and self.measure is None:
            self.clock = serving.Clock()
            return
        self.done += 1
        spent = self.clock.read()
        if self.done < self.given.get("steps", 1) or spent["wall"] < self.given.get("seconds", 0):
            return
        self.trained += spent["wall"]
        facts = {} if self.measure is None else {"auc": self.measure(), "trained": self.trained}
        serving.answer(**spent, count=self.done * args.per_device_train_batch_size, **facts)
        self.done, self.clock = 0, None
        if not serving.waited():
            control.should_training_stop = True
        self.clock = serving.Clock()


def auc(model: SentenceTransformer, data: dict, items: list[str], users: list[str]) -> float:
    """The mean over the evaluation's lists of the share of pairs (ticked, not ticked) in the right order."""
    known = np.unique(np.concatenate(data["eval_item"]))
    given = {"batch_size": 64, "convert_to_numpy": True, "normalize_embeddings": True}
    vectors = dict(zip(known.tolist(), model.encode([items[n] for n in known], **given), strict=True))
    whose = model.encode(users, **given)
    found = []
    for who, shown, label in zip(whose, data["eval_item"], data["eval_label"], strict=True):
        scores = np.array([vectors[n] for n in shown]) @ who
        good, bad = scores[np.array(label) > 0], scores[np.array(label) <= 0]
        if len(good) and len(bad):
            difference = good[:, None] - bad
            found.append(np.mean((difference > 0) + 0.5 * (difference == 0)))
    return float(np.mean(found))


def triplets(data: dict, told: dict, seed: int) -> dict[str, list[str]]:
    """A ticked item and one that was not, for every tick of the training lists."""
    random, found = np.random.default_rng(seed), {"anchor": [], "positive": [], "negative": []}
    for row in random.permutation(len(data["start"]) - 1):
        span = np.arange(data["start"][row], data["start"][row + 1])
        good, bad = span[data["label"][span] > 0], span[data["label"][span] <= 0]
        for one in good if len(bad) else []:
            texts = (
                told["users"][row],
                told["items"][data["item"][one]],
                told["items"][data["item"][random.choice(bad)]],
            )
            for name, text in zip(found, texts, strict=True):
                found[name].append(text)
    return found


def main(given: dict) -> None:
    torch.set_num_threads(os.cpu_count())
    with np.load(given["data"]) as file:
        data = {name: file[name] for name in file.files}
    told = json.loads(Path(given["data"]).with_suffix(".json").read_text(encoding="utf-8"))
    drops = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = SentenceTransformer(
        given["weights"], device="cpu", model_kwargs={"attn_implementation": "sdpa"}, config_kwargs=drops
    )
    model.max_seq_length = 128
    loss = MultipleNegativesRankingLoss(model)
    first = data["rows"][0]
    texts = [
        [told["users"][row] for row in first],
        [told["items"][item] for item in data["item"][data["start"][first]]],
    ]
    with torch.inference_mode():
        value = float(loss([model.tokenize(side) for side in texts], None)) if not given.get("auc") else None
    if given.get("auc"):
        columns = triplets(data, told, given["seed"])
        evaluation = json.loads(Path(given["auc"]).read_text(encoding="utf-8"))
        measure = lambda: auc(model, evaluation, told["items"], evaluation["eval_user"])
    else:
        columns = {"anchor": told["users"], "positive": [told["items"][item] for item in data["item"]]}
        measure = None
    arguments = SentenceTransformerTrainingArguments(
        output_dir=given["folder"],
        max_steps=1_000_000,
        per_device_train_batch_size=given["batch"],
        learning_rate=given["rate"],
        weight_decay=0.0,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        optim="adamw_torch_fused",
        batch_sampler="no_duplicates",
        use_cpu=True,
        seed=given["seed"],
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    turns = Turns(given, measure)
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=loss, callbacks=[turns]
    )
    start = {"auc": measure()} if measure else {}
    serving.ready(loss=value, versions=serving.versions("sentence-transformers", "torch", "transformers"), **start)
    trainer.train()


if __name__ == "__main__":
    main(serving.spec())
