import numpy as np

from mobjrec import cost, export, quantise


def test_large_matrices_are_within_half_a_step_of_their_channel_and_small_ones_stay():
    random = np.random.default_rng(0)
    weights = {
        "a/kernel": random.normal(size=(2, 64, 64)).astype(np.float32) * np.logspace(-3, 2, 64, dtype=np.float32),
        "a/word": random.normal(size=(200, 32)).astype(np.float32),
        "a/bias": random.normal(size=64).astype(np.float32),
        "a/small": random.normal(size=(4, 4)).astype(np.float32),
    }
    weights["a/kernel"][..., 5] = 0
    held = quantise.packed(weights)
    assert held["a/kernel"].dtype == held["a/word"].dtype == np.int8
    assert held["a/kernel.scale"].shape == (2, 1, 64) and held["a/word.scale"].shape == (200, 1)
    assert held["a/bias"] is weights["a/bias"] and held["a/small"] is weights["a/small"]
    for name in ("a/kernel", "a/word"):
        off = np.abs(np.asarray(quantise.opened(held, name)) - weights[name])
        assert (off <= 0.5001 * held[name + ".scale"]).all() and off.max() > 0
        assert np.abs(held[name]).max() == 127
    assert not np.asarray(quantise.opened(held, "a/kernel"))[..., 5].any()


def test_an_export_in_8_bits_computes_with_the_rounded_weights_and_its_cost_is_told(tiny_trained, monkeypatch):
    monkeypatch.setattr(quantise, "LEAST", 256)
    run, rounded = tiny_trained, cost.rounded(tiny_trained.params)
    off = [np.abs(a - b).max() for a, b in zip(*map(leaves, (run.params, rounded)), strict=True)]
    assert 0 < max(off) < 0.05
    function = export.functions(run)["items"]
    held = quantise.packed(export.flat(function.weights))
    assert any(name.endswith(".scale") for name in held)
    exported, _ = export.traced("items", function, held)
    feed = run.parts.feed
    text = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    found = exported.call(held, {"text": text, "ids": feed.item_ids[:3]})
    wanted = run.parts.functions.items(rounded, text, feed.item_ids[:3], feed.item_features[:3])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)

    costs = cost.measured(run)
    assert {"click/auc", "satisfaction/ndcg@5", "utility:click/auc"} <= set(costs)
    for one in costs.values():
        np.testing.assert_allclose(one.difference, one.after - one.before)
        assert np.isnan(one.difference) or abs(one.difference) < 0.05
    assert any(one.difference for one in costs.values())
    assert cost.table(costs).row_count == len(costs)


def leaves(tree):
    return list(export.flat(tree).values())
