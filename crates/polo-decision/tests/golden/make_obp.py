"""Makes obp.json beside this file: what the Open Bandit Pipeline computes on a small synthetic log, which is part of it.

    pip install --no-deps --ignore-requires-python obp==0.5.5
    pip install numpy==2.4.6 scikit-learn==1.9.1 pandas==3.1.1 torch==2.15.0 pyyaml tqdm matplotlib seaborn mypy_extensions
    python make_obp.py

The package's own pins are of 2022 and do not install beside a current Python; the estimators use nothing of the pinned
packages but numpy and scipy. Everything is in float64.
"""

import json
from pathlib import Path

import numpy as np
from obp.ope import (
    DirectMethod,
    DoublyRobust,
    DoublyRobustTuning,
    DoublyRobustWithShrinkage,
    DoublyRobustWithShrinkageTuning,
    InverseProbabilityWeighting,
    InverseProbabilityWeightingTuning,
    RegressionModel,
    ReplayMethod,
    SelfNormalizedDoublyRobust,
    SelfNormalizedInverseProbabilityWeighting,
    SubGaussianDoublyRobust,
    SubGaussianDoublyRobustTuning,
    SubGaussianInverseProbabilityWeighting,
    SubGaussianInverseProbabilityWeightingTuning,
    SwitchDoublyRobust,
    SwitchDoublyRobustTuning,
)
from obp.ope.helper import (
    estimate_bernstein_lower_bound,
    estimate_hoeffding_lower_bound,
    estimate_student_t_lower_bound,
)
from sklearn.linear_model import LogisticRegression, Ridge

ROWS, ACTIONS, WIDTH = 80, 4, 3
DELTA = 0.05

draw = np.random.default_rng(7)


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


# Rounded, so that the file says exactly what was computed with.
context = draw.normal(size=(ROWS, WIDTH)).round(3)
chance = 1 / (1 + np.exp(-(context @ draw.normal(size=(WIDTH, ACTIONS)) + draw.normal(size=ACTIONS))))
logging = softmax(-2 * chance)
action = np.array([draw.choice(ACTIONS, p=row) for row in logging])
reward = (draw.random(ROWS) < chance[np.arange(ROWS), action]).astype(float)
pscore = logging[np.arange(ROWS), action]
target = softmax(4 * chance)
greedy = np.eye(ACTIONS)[target.argmax(axis=1)]

golden = {
    "log": {
        "action_count": ACTIONS,
        "width": WIDTH,
        "contexts": context.ravel().tolist(),
        "actions": action.tolist(),
        "rewards": reward.tolist(),
        "propensities": pscore.tolist(),
        "target": target.ravel().tolist(),
        "greedy": greedy.ravel().tolist(),
    },
    "predictions": [],
    "values": [],
    "bounds": [],
    "error_bounds": [],
    "tuned": [],
}

models = {"ridge": Ridge(alpha=0.7), "logistic": LogisticRegression(C=1 / 0.7, tol=1e-14, max_iter=100_000)}
for name, model in models.items():
    for weights, method in {"equal": "normal", "importance": "iw", "mrdr": "mrdr"}.items():
        regression = RegressionModel(n_actions=ACTIONS, base_model=model, fitting_method=method)
        predicted = regression.fit_predict(
            context=context, action=action, reward=reward, pscore=pscore, action_dist=target[:, :, None]
        )
        golden["predictions"].append({"model": name, "weights": weights, "values": predicted.ravel().tolist()})

# The model of all estimators: logistic, all rows alike.
model = np.array(golden["predictions"][3]["values"]).reshape(ROWS, ACTIONS, 1)
inputs = {
    "reward": reward,
    "action": action,
    "pscore": pscore,
    "action_dist": target[:, :, None],
    "estimated_rewards_by_reg_model": model,
    "position": np.zeros(ROWS, dtype=int),
}


def value(name, estimator, lam=None, inputs=inputs):
    golden["values"].append({"name": name, "lambda": lam, "value": float(estimator.estimate_policy_value(**inputs))})


value("snips", SelfNormalizedInverseProbabilityWeighting())
value("dm", DirectMethod())
value("sndr", SelfNormalizedDoublyRobust())
value("replay", ReplayMethod(), inputs={**inputs, "action_dist": greedy[:, :, None]})
with_lambda = {
    "ips": (InverseProbabilityWeighting, InverseProbabilityWeightingTuning, [0.5, 1.0, 2.0, 5.0, 1e9]),
    "dr": (DoublyRobust, DoublyRobustTuning, [0.5, 1.0, 2.0, 5.0, 1e9]),
    "switch-dr": (SwitchDoublyRobust, SwitchDoublyRobustTuning, [0.5, 1.0, 2.0, 5.0, 1e9]),
    "dr-os": (DoublyRobustWithShrinkage, DoublyRobustWithShrinkageTuning, [0.1, 1.0, 5.0, 50.0, 1e9]),
    "sub-gaussian-ips": (
        SubGaussianInverseProbabilityWeighting,
        SubGaussianInverseProbabilityWeightingTuning,
        [0.0, 0.05, 0.2, 0.5, 1.0],
    ),
    "sub-gaussian-dr": (SubGaussianDoublyRobust, SubGaussianDoublyRobustTuning, [0.0, 0.05, 0.2, 0.5, 1.0]),
}
for name, (estimator, tuning, lambdas) in with_lambda.items():
    for lam in lambdas:
        value(name, estimator(lambda_=lam), lam)
    for method in ["mse", "slope"]:
        tuned = tuning(lambdas=lambdas, tuning_method=method, use_bias_upper_bound=True, delta=DELTA)
        tuned.estimate_policy_value(**inputs)
        golden["tuned"].append({"name": name, "method": method, "lambdas": lambdas, "best": tuned.best_hyperparam})
        for lam, bound in getattr(tuned, "estimated_mse_score_dict", {}).items():
            golden["error_bounds"].append({"name": name, "lambda": lam, "value": float(bound)})

terms = InverseProbabilityWeighting()._estimate_round_rewards(**inputs)
most = float(terms.max()) + 1
for delta in [0.05, 0.3]:
    golden["bounds"] += [
        {"name": "hoeffding", "delta": delta, "most": None, "value": estimate_hoeffding_lower_bound(terms, None, delta)},
        {"name": "hoeffding", "delta": delta, "most": most, "value": estimate_hoeffding_lower_bound(terms, most, delta)},
        {"name": "bernstein", "delta": delta, "most": None, "value": estimate_bernstein_lower_bound(terms, None, delta)},
        {"name": "bernstein", "delta": delta, "most": most, "value": estimate_bernstein_lower_bound(terms, most, delta)},
        {"name": "student", "delta": delta, "most": None, "value": estimate_student_t_lower_bound(terms, delta)},
    ]

path = Path(__file__).with_name("obp.json")
path.write_text(json.dumps(golden, indent=None, separators=(",", ":"), default=float).replace("],", "],\n") + "\n")
