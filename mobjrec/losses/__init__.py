"""Losses: (scores, labels, *, where, weights=None) of [..., L] each -> one value per list [...]; lower is better.

`where` is True for a real item. What stands under the mask has no influence on value or gradient; a list without items
(or, where the formula needs them, without relevant ones) gives 0 with gradient 0. No loss reduces over lists.

| loss | labels | one value is |
|---|---|---|
| sigmoid_cross_entropy | 0/1 or shares | mean over items |
| squared, huber | any number | mean over items |
| quantile | any number | mean over items of the pinball loss: the tau-quantile |
| watch_time_logistic | seconds >= 0, 0 = not clicked | mean over items; e^s is about the expected time |
| ziln (scores [..., L, 3]) | amounts >= 0 | mean over items of -log likelihood, zero-inflated lognormal |
| tweedie | amounts >= 0 | mean over items; e^s is the mean; one score where ziln takes three |
| coral, corn (scores [..., L, W]) | grades 0 ... W | mean over items of the thresholds' sum; over the terms there are |
| focal, poly_1 | 0/1 or shares | mean over items; sigmoid_cross_entropy, less or more for what is right |
| pairwise_logistic (RankNet), hinge | grades | mean over pairs of different grade |
| bpr | relevant where > 0 | pairwise_logistic on labels cut to 0/1 |
| softmax, poly_1_softmax | gains >= 0 | sum over gains |
| listnet, list_mle | any number | cross-entropy of softmax(labels); -log likelihood of their order, ties as they come |
| lambda_rank | grades >= 0, gain 2^y - 1 | sum over pairs, each weighed by NDCG@k's change if they swap |
| lambda_loss | grades >= 0, or relevant where > 0 | so for NDCG-Loss2; precision, recall, MRR, AP |
| recall_at_k | relevant where > 0 | 1 - smooth recall |
| approx_ndcg | grades >= 0, gain 2^y - 1 | 1 - NDCG of soft ranks |
| approx_mrr | relevant where > 0 | 1 - reciprocal soft rank of the best |
| smooth_ap | relevant where > 0 | 1 - AP of soft ranks |
| neural_ndcg | grades >= 0, gain 2^y - 1 | 1 - NDCG@k of a soft permutation; [L, L], so approx_ndcg first |
| precision_at_k | relevant where > 0 | 1 - smooth precision |
| f_beta_at_k, f_beta | relevant where > 0 | 1 - smooth F-beta: of soft ranks; of sigmoids, no k |
| top_k_recall, top_k_precision | relevant where > 0 | as recall_at_k and precision_at_k by a soft top k, O(L) |
| smooth_i_precision, smooth_i_ndcg | relevant where > 0; grades | 1 - metric@k of soft indicators, O(k L) |
| sampled_softmax | relevant where > 0 | mean over relevant of softmax against negatives, logQ |
| sl, psl, bsl | relevant where > 0 | a logsumexp of negatives against each relevant one; bsl: against a soft mean of them |
| sl_at_k | relevant where > 0 | sl with more weight near the k-th score |
| adv_infonce, llpauc | relevant where > 0 | minimax: the objective of the name moves the adversary |

Of another form, as they read no labels (beyond.py): similarity_on_top, 0 to 1, by item vectors and soft shares of the
first k; exposure_gap, 0 to 1, (a group's share of exposure - of merit)^2.

Beside other people's code (rax, torch, allRank, coral-pytorch, scikit-learn): sigmoid_cross_entropy, softmax,
poly_1_softmax, list_mle, pairwise_logistic, bpr, hinge, lambda_rank, lambda_loss of ndcg2, approx_ndcg, approx_mrr,
neural_ndcg, huber, quantile, coral, corn. All others beside slow numpy forms of their papers' formulas alone.
"""

from mobjrec.losses.approximate import approx_mrr, approx_ndcg, smooth_ap
from mobjrec.losses.beyond import exposure_gap as exposure_gap
from mobjrec.losses.beyond import similarity_on_top as similarity_on_top
from mobjrec.losses.contrastive import adv_infonce, bsl, llpauc, psl, sampled_softmax, sl, sl_at_k
from mobjrec.losses.contrastive import hardest as hardest
from mobjrec.losses.facts import facts_of as facts_of
from mobjrec.losses.facts import states as states
from mobjrec.losses.lambdas import lambda_loss, lambda_rank
from mobjrec.losses.lambdas import swap_loss as swap_loss
from mobjrec.losses.listwise import list_mle, listnet, poly_1_softmax, softmax
from mobjrec.losses.neural import neural_ndcg
from mobjrec.losses.ordinal import coral, corn
from mobjrec.losses.pairwise import bpr, hinge, pairwise_logistic
from mobjrec.losses.pointwise import focal, huber, poly_1, sigmoid_cross_entropy, squared
from mobjrec.losses.reduce import masked_mean as masked_mean
from mobjrec.losses.regression import quantile, tweedie, watch_time_logistic, ziln
from mobjrec.losses.regression import tame_exp as tame_exp
from mobjrec.losses.regression import ziln_mean as ziln_mean
from mobjrec.losses.smooth_i import smooth_i_ndcg, smooth_i_precision
from mobjrec.losses.topk import f_beta, f_beta_at_k, precision_at_k, recall_at_k, top_k_precision, top_k_recall

__all__ = [
    "adv_infonce",
    "approx_mrr",
    "approx_ndcg",
    "bpr",
    "bsl",
    "coral",
    "corn",
    "f_beta",
    "f_beta_at_k",
    "focal",
    "hinge",
    "huber",
    "lambda_loss",
    "lambda_rank",
    "list_mle",
    "listnet",
    "llpauc",
    "neural_ndcg",
    "pairwise_logistic",
    "poly_1",
    "poly_1_softmax",
    "precision_at_k",
    "psl",
    "quantile",
    "recall_at_k",
    "sampled_softmax",
    "sigmoid_cross_entropy",
    "sl",
    "sl_at_k",
    "smooth_ap",
    "smooth_i_ndcg",
    "smooth_i_precision",
    "softmax",
    "squared",
    "top_k_precision",
    "top_k_recall",
    "tweedie",
    "watch_time_logistic",
    "ziln",
]
