"""Makes losses.json beside this file: what TRL's own trainers compute on fixed batches.

    pip install trl==1.16.0 torch==2.15.0 transformers==5.24.0
    python make_trl_losses.py

Nothing is trained and no model folder is read: policy and reference are tables of logits by the token before and the
place, and the trainers' loss functions are called on them as they stand, in float64. See README.md for the format.
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.experimental.tpo import TPOTrainer

VOCAB, PLACES = 11, 24
PROMPTS = [3, 1, 4, 2, 5]
CHOSEN = [3, 5, 2, 7, 4]
REJECTED = [4, 2, 6, 3, 4]
GOLD = [2, 6, 4, 3, 5]

torch.set_default_dtype(torch.float64)
draw = torch.Generator().manual_seed(5)


class Table(torch.nn.Module):
    """Logits by the token before and the place. Keeps what it computed, for its gradient."""

    def __init__(self, scale, like=None):
        super().__init__()
        words = torch.randn(VOCAB, VOCAB, generator=draw) * scale
        places = torch.randn(PLACES, VOCAB, generator=draw) * scale
        if like is not None:
            words, places = like.words + words, like.places + places
        self.words, self.places = words, places
        self.is_gradient_checkpointing = False
        self.dtype = torch.float64
        self.logits = None

    def forward(self, input_ids, labels=None, fused_lm_head=False, **_):
        logits = (self.words[input_ids] + self.places[: input_ids.size(1)]).to(self.dtype)
        if torch.is_grad_enabled():
            self.logits = logits.requires_grad_()
            self.input_ids = input_ids
        if not fused_lm_head:
            return SimpleNamespace(logits=logits)
        logp = F.log_softmax(logits[:, :-1], dim=-1)
        targets = labels[:, 1:]
        seen = targets != -100
        own = logp.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        return SimpleNamespace(
            log_probs=own * seen,
            entropy=-(logp.exp() * logp).sum(-1),
            mean_logits=logits[:, :-1].mean(-1),
            is_top1=logp.argmax(-1) == targets,
            log_sum_sq_probs=torch.logsumexp(2 * logp, -1),
        )

    def token_gradients(self):
        """dL/dlogp of each token after the first, from that of the logits: it is g (onehot - p) where the loss depends
        on the logits by the log-prob of the token alone."""
        logits, targets = self.logits.detach()[:, :-1], self.input_ids[:, 1:]
        g = self.logits.grad[:, :-1].gather(-1, targets[..., None])[..., 0]
        p = logits.softmax(-1).gather(-1, targets[..., None])[..., 0]
        return g / (1 - p)


def answers(lengths):
    return [torch.randint(1, VOCAB, (n,), generator=draw) for n in lengths]


def padded(prompts, tails):
    """Ids, attention and completion masks of prompt + tail, padded to the right."""
    size = max(len(p) + len(t) for p, t in zip(prompts, tails))
    ids = torch.zeros(len(prompts), size, dtype=torch.long)
    attention, completion = ids.clone(), ids.clone()
    for row, (prompt, tail) in enumerate(zip(prompts, tails)):
        whole = torch.cat([prompt, tail])
        ids[row, : len(whole)] = whole
        attention[row, : len(whole)] = 1
        completion[row, len(prompt) : len(whole)] = 1
    return ids, attention, completion


policy = Table(0.9)
reference = Table(0.25, like=policy)
prompts = answers(PROMPTS)
chosen, rejected, gold = answers(CHOSEN), answers(REJECTED), answers(GOLD)
labels_of_singles = torch.tensor([True, False, True, True, False])


def scores(model, tails, ld=None):
    """Per answer: sum of its log-probs, nats; under LD-DPO's weights if `ld` is (alpha, the other answers)."""
    result = []
    for row, (prompt, tail) in enumerate(zip(prompts, tails)):
        logp = F.log_softmax(model(torch.cat([prompt, tail])[None]).logits[0, :-1], -1)
        own = logp[len(prompt) - 1 :].gather(-1, tail[:, None])[:, 0]
        if ld is not None:
            alpha, others = ld
            own = own * torch.where(torch.arange(len(tail)) < min(len(tail), len(others[row])), 1.0, alpha)
        result.append(own.sum().item())
    return result


def typicality(model, tails):
    result = []
    for prompt, tail in zip(prompts, tails):
        logp = F.log_softmax(model(torch.cat([prompt, tail])[None]).logits[0, :-1], -1)[len(prompt) - 1 :]
        own = logp.gather(-1, tail[:, None])[:, 0]
        result.append((own - torch.logsumexp(2 * logp, -1)).mean().item())
    return result


def batch(slots, ld=None, labels=None):
    with torch.no_grad():
        lds = [None] * len(slots) if ld is None else [(ld, slots[1]), (ld, slots[0])]
        return {
            "policy": [scores(policy, slot, ld) for slot, ld in zip(slots, lds)],
            "reference": [scores(reference, slot, ld) for slot, ld in zip(slots, lds)],
            "tokens": [[len(tail) for tail in slot] for slot in slots],
            "typicality": [typicality(policy, slot) for slot in slots],
            "labels": labels or [1.0] * len(prompts),
        }


def shared(**others):
    """What all trainers look at of themselves."""
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x
    )
    return SimpleNamespace(
        model=policy,
        ref_model=reference,
        accelerator=accelerator,
        aux_loss_enabled=False,
        is_encoder_decoder=False,
        precompute_ref_logps=False,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=0.05, device=torch.device("cpu")),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        **others,
    )


def per_slot(gradients, completion_mask, slots):
    """dL/dL(y) of each answer: that of its first token, which all its tokens share."""
    first = completion_mask[:, 1:].argmax(1)
    own = gradients.gather(1, first[:, None])[:, 0]
    return [part.tolist() for part in own.chunk(slots)]


def case(name, data, method, settings, loss, metrics, gradient, tolerance=1e-9):
    found = {key: value[-1] if isinstance(value, list) else value for key, value in metrics.items()}
    kept = ("rewards/", "logps/", "nll_loss", "kl", "log_odds")
    return {
        "name": name,
        "batch": data,
        "method": method,
        "settings": settings,
        "loss": float(loss.detach()),
        "metrics": {key: float(value) for key, value in found.items() if key.startswith(kept)},
        "gradient": gradient,
        "tolerance": tolerance,
    }


def dpo(loss_type, settings, data="pairs", dtype=torch.float64, tolerance=1e-9, method="dpo-survey", beta=0.3, **options):
    ids, attention, completion = padded(prompts * 2, chosen + rejected)
    types = [loss_type] if isinstance(loss_type, str) else loss_type
    me = shared(
        beta=beta,
        loss_types=types,
        loss_weights=options.pop("weights", [1.0] * len(types)),
        label_smoothing=options.pop("label_smoothing", 0.0),
        ld_alpha=options.pop("ld_alpha", None),
        f_divergence_type=options.pop("f_divergence_type", "reverse_kl"),
        f_alpha_divergence_coef=options.pop("f_alpha_divergence_coef", 0.5),
        use_weighting=options.pop("use_weighting", False),
    )
    assert not options, options
    policy.dtype = reference.dtype = dtype
    inputs = {"input_ids": ids, "attention_mask": attention, "completion_mask": completion}
    loss = DPOTrainer._compute_loss(me, policy, inputs, False)
    loss.backward()
    gradient = per_slot(policy.token_gradients(), completion, 2)
    policy.dtype = reference.dtype = torch.float64
    settings = {"beta": beta, **settings}
    return case(f"DPOTrainer {loss_type}", data, method, settings, loss, me._metrics["train"], gradient, tolerance)


def pair_inputs():
    rows = {}
    for side, tails in (("chosen", chosen), ("rejected", rejected)):
        ids, attention, completion = padded(prompts, tails)
        rows[f"{side}_input_ids"], rows[f"{side}_attention_mask"] = ids, attention
        rows[f"{side}_labels"] = torch.where(completion == 1, ids, -100)
    return rows, padded(prompts * 2, chosen + rejected)[2]


class Cpo(SimpleNamespace):
    concatenated_inputs = staticmethod(CPOTrainer.concatenated_inputs)
    get_batch_logps = staticmethod(CPOTrainer.get_batch_logps)
    concatenated_forward = CPOTrainer.concatenated_forward
    cpo_loss = CPOTrainer.cpo_loss


class Orpo(SimpleNamespace):
    concatenated_inputs = staticmethod(ORPOTrainer.concatenated_inputs)
    get_batch_logps = staticmethod(ORPOTrainer.get_batch_logps)
    concatenated_forward = ORPOTrainer.concatenated_forward
    odds_ratio_loss = ORPOTrainer.odds_ratio_loss


def cpo(loss_type, method, settings, beta=0.3, alpha=0.0, cpo_alpha=0.0, label_smoothing=0.0, gamma=0.5, data="pairs"):
    rows, completion = pair_inputs()
    me = Cpo(
        **vars(shared()),
        loss_type=loss_type,
        beta=beta,
        alpha=alpha,
        cpo_alpha=cpo_alpha,
        label_smoothing=label_smoothing,
        simpo_gamma=gamma,
        pad_token_id=0,
    )
    loss, metrics = CPOTrainer.get_batch_loss_metrics(me, policy, rows)
    loss.backward()
    if cpo_alpha == 0:
        del metrics["nll_loss"]
    gradient = per_slot(policy.token_gradients(), completion, 2)
    name = f"CPOTrainer {loss_type}"
    return case(name, data, method, {"beta": beta, **settings}, loss, metrics, gradient)


def orpo(beta=0.3):
    rows, completion = pair_inputs()
    me = Orpo(**vars(shared()), beta=beta, padding_value=0)
    loss, metrics = ORPOTrainer.get_batch_loss_metrics(me, policy, rows)
    loss.backward()
    tokens = policy.token_gradients()
    gradient = per_slot(tokens, completion, 2)
    # The imitation is of prompt and answer, the third slot here: its share is what a prompt's token has.
    row = PROMPTS.index(max(PROMPTS))
    whole = tokens[row, 0].item()
    gradient[0] = [g - whole for g in gradient[0]]
    gradient.append([whole] * len(prompts))
    settings = {"loss": "orpo", "beta": beta, "prompt_nll": True}
    # ORPOTrainer computes its odds in float32.
    return case("ORPOTrainer", "pairs with prompts", "dpo-survey", settings, loss, metrics, gradient, 1e-6)


def tpo(loss_type, settings, beta, alpha, label_smoothing=0.0, gamma=0.5):
    ids, attention, completion = padded(prompts * 3, chosen + rejected + gold)
    me = shared(
        beta=beta, loss_type=loss_type, tpo_alpha=alpha, label_smoothing=label_smoothing, tpo_l_gamma=gamma
    )
    # TPOTrainer sums the log-probs of all places: its kernel leaves those outside of the completion at zero.
    inputs = {"input_ids": ids, "attention_mask": attention, "completion_mask": completion}
    loss = TPOTrainer._compute_loss(me, policy, inputs, False)
    loss.backward()
    won, lost, imitated = per_slot(policy.token_gradients(), completion, 3)
    settings = {"beta": beta, "alpha": alpha, "label_smoothing": label_smoothing, "gamma": gamma, **settings}
    name = f"TPOTrainer {loss_type}"
    return case(name, "triples", "tpo", settings, loss, me._metrics["train"], [imitated, won, lost])


def kto(loss_type, beta=0.3, desirable=1.0, undesirable=1.0):
    ids, attention, completion = padded(prompts, chosen)
    kl_ids, kl_attention, kl_completion = padded(prompts, mismatched)
    me = shared(
        beta=beta,
        loss_type=loss_type,
        desirable_weight=desirable,
        undesirable_weight=undesirable,
        calculate_KL=loss_type == "kto",
        _compute_kl_logps=None,
    )
    me._compute_kl_logps = lambda model, rows: KTOTrainer._compute_kl_logps(me, model, rows)
    inputs = {
        "input_ids": ids,
        "attention_mask": attention,
        "completion_mask": completion,
        "KL_input_ids": kl_ids,
        "KL_attention_mask": kl_attention,
        "KL_completion_mask": kl_completion,
        "label": labels_of_singles,
    }
    loss = KTOTrainer._compute_loss(me, policy, inputs, False)
    loss.backward()
    gradient = per_slot(policy.token_gradients(), completion, 1)
    metrics = me._metrics["train"]
    if loss_type == "kto":
        gradient.append([0.0] * len(prompts))
    else:
        del metrics["kl"]
    settings = {
        "loss": loss_type.replace("_", "-"),
        "beta": beta,
        "desirable_weight": desirable,
        "undesirable_weight": undesirable,
    }
    data = "singles with mismatches" if loss_type == "kto" else "singles"
    return case(f"KTOTrainer {loss_type}", data, "dpo-survey", settings, loss, metrics, gradient)


mismatched = [chosen[-1]] + chosen[:-1]
wholes = [torch.cat([prompt[1:], tail]) for prompt, tail in zip(prompts, chosen)]
labels = labels_of_singles.double().tolist()
pairs = batch([chosen, rejected])
with_prompts = batch([chosen, rejected])
with_prompts["tokens"].append([len(whole) for whole in wholes])
starts, prompts = prompts, [prompt[:1] for prompt in prompts]
with torch.no_grad():
    with_prompts["policy"].append(scores(policy, wholes))
prompts = starts
batches = {
    "pairs": pairs,
    "pairs, ld 0.4": batch([chosen, rejected], ld=0.4),
    "pairs with prompts": with_prompts,
    "triples": batch([gold, chosen, rejected]),
    "singles": batch([chosen], labels=labels),
    "singles with mismatches": batch([chosen, mismatched], labels=labels),
}

cases = [
    dpo("sigmoid", {"loss": "sigmoid"}),
    dpo("hinge", {"loss": "hinge"}),
    dpo("ipo", {"loss": "ipo", "reduction": "mean"}),
    dpo("exo_pair", {"loss": "exo-pair", "label_smoothing": 0.1}, label_smoothing=0.1),
    dpo("nca_pair", {"loss": "nca-pair"}),
    dpo("robust", {"loss": "robust", "label_smoothing": 0.2}, label_smoothing=0.2),
    dpo("robust", {"flip_rate": 0.2}, label_smoothing=0.2, method="rdpo"),
    dpo("bco_pair", {"loss": "bco-pair"}),
    dpo("sppo_hard", {"loss": "sppo-hard"}),
    dpo("aot", {"loss": "aot", "label_smoothing": 0.15}, label_smoothing=0.15),
    dpo("aot_unpaired", {"loss": "aot-unpaired", "label_smoothing": 0.15}, label_smoothing=0.15),
    dpo("apo_zero", {"loss": "apo-zero"}),
    dpo("apo_down", {"loss": "apo-down"}),
    dpo("discopop", {"loss": "discopop"}),
    dpo("sigmoid_norm", {"loss": "sigmoid-norm"}, beta=2.0),
    dpo(["sigmoid", "sft"], {"loss": "sigmoid", "also": ["sft"], "weights": [1.0, 0.7]}, weights=[1.0, 0.7]),
    dpo(
        ["sigmoid", "bco_pair", "sft"],
        {"loss": "sigmoid", "also": ["bco-pair", "sft"], "weights": [0.8, 0.2, 1.0]},
        weights=[0.8, 0.2, 1.0],
    ),
    dpo("sigmoid", {"loss": "sigmoid", "tokens": "ld", "ld_alpha": 0.4}, data="pairs, ld 0.4", ld_alpha=0.4),
    dpo("sigmoid", {"loss": "sigmoid", "weighting": True}, use_weighting=True),
    dpo("ipo", {"loss": "ipo", "reduction": "mean", "weighting": True}, use_weighting=True),
]
for divergence, ours in (("forward_kl", "forward-kl"), ("js_divergence", "js")):
    for loss_type in ("sigmoid", "hinge", "ipo", "sigmoid_norm", "discopop", "robust"):
        settings = {"loss": loss_type.replace("_", "-"), "divergence": ours, "reduction": "mean"}
        options = {}
        if loss_type == "robust":
            settings["label_smoothing"] = options["label_smoothing"] = 0.2
        cases.append(dpo(loss_type, settings, f_divergence_type=divergence, **options))
for loss_type in ("sigmoid", "ipo"):
    settings = {"loss": loss_type, "divergence": "alpha", "divergence_alpha": 0.6, "reduction": "mean"}
    # The alpha-divergence has no float64 path in TRL.
    options = {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.6}
    cases.append(dpo(loss_type, settings, dtype=torch.float32, tolerance=1e-5, **options))
two = {"answers": "two"}
cases += [
    cpo("sigmoid", "dpo-survey", {"loss": "cpo", "lambda": 0.7}, cpo_alpha=0.7),
    cpo("sigmoid", "dpo-survey", {"loss": "cpo", "lambda": 0.0, "label_smoothing": 0.2}, label_smoothing=0.2),
    cpo("sigmoid", "tpo", {**two, "alpha": 0.7}, cpo_alpha=0.7),
    cpo("hinge", "dpo-survey", {"loss": "hinge", "reference": False, "also": ["sft"]}, cpo_alpha=1.0),
    cpo("hinge", "tpo", {**two, "loss": "hinge", "alpha": 1.0}, cpo_alpha=1.0),
    cpo("ipo", "dpo-survey", {"loss": "ipo", "reference": False, "reduction": "mean"}),
    cpo("ipo", "tpo", {**two, "loss": "ipo", "alpha": 0.5}, cpo_alpha=0.5),
    cpo("simpo", "dpo-survey", {"loss": "simpo", "gamma": 0.4}, beta=2.0, gamma=0.4),
    cpo("simpo", "simpo", {"gamma_beta_ratio": 0.2}, beta=2.0, gamma=0.4),
    cpo(
        "simpo",
        "simpo",
        {"gamma_beta_ratio": 0.2, "sft_weight": 0.5, "label_smoothing": 0.1},
        beta=2.0,
        gamma=0.4,
        cpo_alpha=0.5,
        label_smoothing=0.1,
    ),
    cpo("simpo", "dpo-survey", {"loss": "alpha-po", "alpha": 0.25, "gamma": 0.4}, beta=2.0, gamma=0.4, alpha=0.25),
    orpo(),
    tpo("sigmoid", {}, beta=0.2, alpha=0.8, label_smoothing=0.1),
    tpo("tpo-l", {"form": "tpo-l"}, beta=2.0, alpha=0.8, label_smoothing=0.1, gamma=0.4),
    tpo("hinge", {"loss": "hinge"}, beta=0.2, alpha=0.8),
    tpo("ipo", {"loss": "ipo"}, beta=0.2, alpha=0.8),
    kto("kto"),
    kto("kto", desirable=1.3, undesirable=0.8),
    kto("apo_zero_unpaired"),
]

lines = ",\n".join(f"  {json.dumps(entry)}" for entry in cases)
data = ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in batches.items())
text = f'{{"batches": {{\n{data}\n}},\n"cases": [\n{lines}\n]}}\n'
json.loads(text)
Path(__file__).with_name("losses.json").write_text(text)
