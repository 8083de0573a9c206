"""A catalogue ranked for users in blocks, recall and NDCG at 20 of one relevant item each: by mobjrec's search, by numpy."""

import serving

GIVEN = serving.spec()
BLOCK, WIDTH, CUT = 256, 64, 20


def vectors():
    import numpy as np

    random = np.random.default_rng(0)
    items = random.normal(size=(GIVEN["items"], WIDTH)).astype(np.float32)
    relevant = random.integers(0, GIVEN["items"], GIVEN["users"])
    users = 0.5 * items[relevant] + random.normal(size=(GIVEN["users"], WIDTH)).astype(np.float32)
    return users.astype(np.float32), items, relevant


def mobjrec():
    import jax
    import jax.numpy as jnp
    import numpy as np

    from mobjrec.search import GROUP, largest

    users, items, relevant = vectors()
    count = len(items)
    placed = jax.device_put(np.pad(items, ((0, -count % GROUP), (0, 0))))

    @jax.jit
    def block(users, items, relevant):
        scores = jnp.where(jnp.arange(len(items)) < count, users @ items.T, -jnp.inf)
        place = largest(scores, CUT)[1] == relevant[:, None]
        return jnp.stack([place.any(1), (place / jnp.log2(jnp.arange(CUT) + 2.0)).sum(1)], 1)

    def work():
        found = [block(users[n : n + BLOCK], placed, relevant[n : n + BLOCK]) for n in range(0, len(users), BLOCK)]
        return np.concatenate(jax.device_get(found)).mean(0)

    return work


def numpy():
    import numpy as np

    users, items, relevant = vectors()

    def work():
        hits = np.zeros((len(users), 2))
        for n in range(0, len(users), BLOCK):
            scores = users[n : n + BLOCK] @ items.T
            top = np.argpartition(-scores, CUT, axis=1)[:, :CUT]
            top = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1), 1)
            place = top == relevant[n : n + BLOCK, None]
            hits[n : n + BLOCK] = np.stack([place.any(1), (place / np.log2(np.arange(CUT) + 2.0)).sum(1)], 1)
        return hits.mean(0)

    return work


if __name__ == "__main__":
    work = {"mobjrec": mobjrec, "numpy": numpy}[GIVEN["whose"]]()
    recall, ndcg = work()
    serving.ready(loss=float(recall + ndcg), versions=serving.versions("jax", "numpy"))
    serving.told(lambda: {"count": GIVEN["users"], "found": [float(one) for one in work()]})
