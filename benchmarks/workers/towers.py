"""Two BERT towers with an MLP head in plain torch and transformers, as their users write it: what ours is timed against.

Rows padded to the longest of the batch, SDPA attention, fused AdamW, all cores; texts tokenised beforehand. `each`: lists
(a user's text once a list), or events (a user's text and an item's for every event, as a table of events gives them).
"""

import os

import numpy as np
import serving
import torch
from torch.nn import functional as F
from transformers import AutoModel


class Towers(torch.nn.Module):
    """The same function as the ranker of the config: projections, [u, v, u v, |u - v|] -> MLP, plus u . v."""

    def __init__(self, weights: str, head: str, start: dict[str, np.ndarray]):
        super().__init__()
        self.head = head
        drops = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        self.encoder = AutoModel.from_pretrained(weights, attn_implementation="sdpa", add_pooling_layer=False, **drops)
        self.rest = torch.nn.ParameterDict(
            {name.replace("/", "_"): torch.nn.Parameter(torch.from_numpy(value)) for name, value in start.items()}
        )

    def encode(self, texts: list[np.ndarray]) -> torch.Tensor:
        """Texts of any lengths -> [N, D] of length 1: the mean of their tokens."""
        tokens = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(one).long() for one in texts], batch_first=True)
        lengths = torch.tensor([len(one) for one in texts])
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        hidden = self.encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / lengths[:, None]
        return F.normalize(mean, dim=-1)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """users [..., D], items [..., D] -> scores [...]."""
        p = self.rest
        u = users @ p["user_join_text_kernel"] + p["user_bias"]
        v = items @ p["item_join_text_kernel"]
        first = u @ p["scorer_first_user"] + v @ p["scorer_first_item"] + p["scorer_first_bias"]
        first = first + (u * v) @ p["scorer_first_product"] + (u - v).abs() @ p["scorer_first_distance"]
        hidden = F.gelu(first, approximate="tanh")
        return (hidden @ p[f"scorer_heads_{self.head}_kernel"])[..., 0] + (u * v).sum(-1)


def loss_of(
    model: Towers, data: dict[str, np.ndarray], step: int, given: dict, some: slice
) -> tuple[torch.Tensor, int]:
    """(what `some` of this step's lists, or of their events, add to the mean over its lists, rows that entered it)."""
    rows = data["rows"][step]
    spans = [np.arange(data["start"][row], data["start"][row + 1]) for row in rows]
    speaks = sum(data["label"][span].max() > 0 for span in spans) if given["loss"] == "softmax" else len(rows)
    if given["each"] == "events":
        which = np.repeat(np.arange(len(rows)), [len(span) for span in spans])
        share = 1.0 / (speaks * np.array([len(span) for span in spans]))[which]
        place, which, share = (array[some] for array in (np.concatenate(spans), which, share))
        scores = model(model.encode([cut(data, "user", rows[n]) for n in which]), model.encode(items_of(data, place)))
        lost = F.binary_cross_entropy_with_logits(scores, torch.from_numpy(data["label"][place]), reduction="none")
        return (lost * torch.from_numpy(share.astype(np.float32))).sum(), len(place)
    rows, spans = rows[some], spans[some]
    real = np.arange(max(len(span) for span in spans)) < np.array([len(span) for span in spans])[:, None]
    places = np.zeros(real.shape, int)
    places[real] = np.concatenate(spans)
    where, vectors = torch.from_numpy(real), model.encode(items_of(data, places[real]))
    items = torch.zeros(*where.shape, vectors.shape[-1]).masked_scatter(where[..., None], vectors)
    scores = model(model.encode([cut(data, "user", row) for row in rows])[:, None], items)
    labels = torch.from_numpy(np.where(real, data["label"][places], 0).astype(np.float32))
    if given["loss"] == "softmax":
        shares = torch.log_softmax(scores.masked_fill(~where, torch.finfo(scores.dtype).min), -1)
        return -(labels * shares).sum() / speaks, int(real.sum())
    lost = F.binary_cross_entropy_with_logits(scores, labels, reduction="none") * where
    return (lost.sum(1) / where.sum(1)).sum() / speaks, int(real.sum())


def items_of(data: dict[str, np.ndarray], places: np.ndarray) -> list[np.ndarray]:
    return [cut(data, "item", row) for row in data["item_text"][places]]


def cut(data: dict[str, np.ndarray], side: str, row: int) -> np.ndarray:
    start = data[f"{side}_start"]
    return data[f"{side}_token"][start[row] : start[row + 1]]


def main(given: dict) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())
    with np.load(given["data"]) as file:
        data = {name: file[name] for name in file.files}
    start = {name.removeprefix("params/"): data[name] for name in data if name.startswith("params/")}
    model = Towers(given["weights"], given["head"], start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given["rate"], weight_decay=0.0, fused=True)
    # A piece is what suits torch: of a large batch so many lists or events at a time; the first loss is of all.
    count = int(np.diff(data["start"])[data["rows"][0]].sum()) if given["each"] == "events" else data["rows"].shape[1]
    piece = given["piece"] or count
    with torch.inference_mode():
        first = sum(float(loss_of(model, data, 0, given, slice(n, n + piece))[0]) for n in range(0, count, piece))
    state = {"step": 0}

    def step() -> dict:
        loss, count = loss_of(model, data, state["step"], given, slice(piece))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state["step"] = (state["step"] + 1) % len(data["rows"])
        return {"count": count, "loss": float(loss)}

    if given["warm"]:
        step()
    serving.ready(loss=first, versions=serving.versions("torch", "transformers", "numpy"))
    serving.told(step)


if __name__ == "__main__":
    main(serving.spec())
