"""Makes the golden values of DPO and IPO beside this file with TRL's DPOTrainer.

    pip install trl==1.16.0 torch transformers datasets safetensors
    python make_trl.py

The reference model is polo-lm's golden model `llama`; the policy is that model with noise added,
so that margins and rewards are not zero. The file formats are described in README.md.
"""

import json
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from datasets import Dataset, disable_progress_bars
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer

HERE = Path(__file__).parent
REFERENCE = HERE / "../../../polo-lm/tests/golden/llama"
POLICY = HERE / "policy"
VOCAB, EOS = 97, 2
BETA = 0.1
STEPS = 20
# prompt, chosen and rejected lengths before the end token; the first four pairs are the fixed batch
LENGTHS = [
    (9, 7, 4), (3, 2, 11), (14, 5, 5), (6, 12, 1),
    (11, 3, 8), (2, 6, 6), (8, 9, 2), (5, 4, 10),
]  # fmt: skip


def tokenizer():
    """Words `t3` .. `t96` are the tokens 3 .. 96, so that TRL's own path keeps the ids that we chose."""
    names = ["<pad>", "<s>", "</s>"] + [f"t{i}" for i in range(3, VOCAB)]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def draw_pairs(reference):
    draw = torch.Generator().manual_seed(11)

    def words(ids):
        return "".join(f" t{i}" for i in ids)

    pairs = []
    for lengths in LENGTHS:
        prompt, chosen, rejected = (
            torch.randint(3, VOCAB, (length,), generator=draw) for length in lengths
        )
        if len(pairs) == 3:  # what the model itself would say, so that token accuracy is not zero
            chosen = reference.generate(
                input_ids=prompt[None],
                do_sample=False,
                max_new_tokens=len(chosen),
                suppress_tokens=[0, 1, EOS],
            )[0, len(prompt) :]
        pairs.append(
            {"prompt": words(prompt).strip(), "chosen": words(chosen), "rejected": words(rejected)}
        )
    return pairs


def load(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=dtype)


def make_policy():
    model = load(REFERENCE)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.03 * torch.randn(weight.shape, generator=draw))
    model.save_pretrained(POLICY)


class Recorder(DPOTrainer):
    """Keeps the unrounded loss of every step; the trainer's log rounds it."""

    losses: list

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.losses.append(loss.item())
        return loss


def trainer(pairs, loss_type, model, reference, batch, folder):
    made = Recorder(
        model=model,
        ref_model=reference,
        args=DPOConfig(
            output_dir=folder,
            loss_type=[loss_type],
            beta=BETA,
            per_device_train_batch_size=batch,
            max_steps=STEPS,
            learning_rate=1e-3,
            lr_scheduler_type="linear",
            warmup_steps=0,
            optim="adamw_torch",
            adam_beta1=0.9,
            adam_beta2=0.999,
            adam_epsilon=1e-8,
            weight_decay=0.01,
            max_grad_norm=1.0,
            train_sampling_strategy="sequential",
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer(),
    )
    made.remove_callback(PrinterCallback)
    made.losses = []
    return made


def ids_of(dataset):
    """The token ids as TRL made them, end tokens included."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [{name: row[name] for name in names} for row in dataset]


def log_probs(model, row, side):
    """Log-probs of the completion's tokens, by hand: one sequence, no padding."""
    ids = torch.tensor([row["prompt_ids"] + row[side]])
    scores = F.log_softmax(model(input_ids=ids).logits[0, :-1], dim=-1)
    return scores.gather(1, ids[0, 1:, None])[len(row["prompt_ids"]) - 1 :, 0]


def by_hand(policy, reference, rows):
    """Per pair: summed log-probs and lengths, differentiable in the policy."""
    sums = {}
    for side in ("chosen_ids", "rejected_ids"):
        name = side.removesuffix("_ids")
        sums[f"{name}_logps"] = torch.stack([log_probs(policy, r, side).sum() for r in rows])
        with torch.no_grad():
            sums[f"ref_{name}_logps"] = torch.stack(
                [log_probs(reference, r, side).sum() for r in rows]
            )
        sums[f"{name}_tokens"] = torch.tensor([len(r[side]) for r in rows])
    return sums


def losses_by_hand(sums):
    chosen = sums["chosen_logps"] - sums["ref_chosen_logps"]
    rejected = sums["rejected_logps"] - sums["ref_rejected_logps"]
    per_token = chosen / sums["chosen_tokens"] - rejected / sums["rejected_tokens"]
    return {
        "sigmoid": -F.logsigmoid(BETA * (chosen - rejected)),
        "ipo_mean": (per_token - 0.5 / BETA) ** 2,
        "ipo_sum": (chosen - rejected - 0.5 / BETA) ** 2,
    }


def gradients(model):
    taken = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    return taken


def one_step(pairs, loss_type, folder):
    """Loss, metrics and gradients of the fixed batch, computed by TRL."""
    made = trainer(pairs[:4], loss_type, load(POLICY), load(REFERENCE), 4, folder)
    batch = made.data_collator(ids_of(made.train_dataset))
    made.model.train()
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    metrics = {name: values[-1] for name, values in made._metrics["train"].items()}
    return loss.item(), metrics, gradients(made.model), ids_of(made.train_dataset)


def trajectory(pairs, loss_type, folder, dtype=torch.float32):
    model = load(REFERENCE, dtype)
    made = trainer(pairs, loss_type, model, load(REFERENCE, dtype), 2, folder)
    made.train()
    logs = [entry for entry in made.state.log_history if "loss" in entry]
    assert len(logs) == len(made.losses) == STEPS
    decayed = set(made.get_decay_parameter_names(model))
    steps = [
        {"loss": loss, "grad_norm": float(log["grad_norm"]), "learning_rate": log["learning_rate"]}
        | {name: value for name, value in log.items() if "/" in name}
        for loss, log in zip(made.losses, logs)
    ]
    return steps, made.model.state_dict(), decayed, ids_of(made.train_dataset)


def write_json(path, golden):
    """One line per key: lists of token ids stay readable."""
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    make_policy()
    pairs = draw_pairs(load(REFERENCE))
    with tempfile.TemporaryDirectory() as folder:
        golden = {"beta": BETA, "trl": {}, "by_hand": {}}
        for loss_type in ("sigmoid", "ipo"):
            loss, metrics, grads, rows = one_step(pairs, loss_type, folder)
            golden["trl"][loss_type] = {"loss": loss, "metrics": metrics}
            save_file(grads, HERE / f"gradients-{loss_type}.safetensors")

        policy, reference = load(POLICY), load(REFERENCE)
        sums = by_hand(policy, reference, rows)
        for name, losses in losses_by_hand(sums).items():
            losses.mean().backward(retain_graph=True)
            golden["by_hand"][name] = {"loss": losses.mean().item(), "per_pair": losses.tolist()}
            grads = gradients(policy)
            if name == "ipo_sum":
                save_file(grads, HERE / "gradients-ipo-sum.safetensors")
        golden["batch"] = rows
        golden["per_pair"] = {name: values.tolist() for name, values in sums.items()}
        for theirs, ours in (("sigmoid", "sigmoid"), ("ipo", "ipo_mean")):
            gap = golden["trl"][theirs]["loss"] - golden["by_hand"][ours]["loss"]
            assert abs(gap) < 1e-5, f"{theirs}: TRL and the formula differ by {gap}"
        write_json(HERE / "one_step.json", golden)

        for loss_type in ("sigmoid", "ipo"):
            steps, weights, decayed, rows = trajectory(pairs, loss_type, folder)
            exact, exact_weights, _, _ = trajectory(pairs, loss_type, folder, torch.float64)
            error = {
                key: max(abs(a[key] - b[key]) for a, b in zip(steps, exact))
                for key in ("loss", "grad_norm")
            }
            error["weights"] = max(
                (weights[n].double() - exact_weights[n]).abs().max().item() for n in weights
            )
            golden = {
                "loss_type": loss_type,
                "beta": BETA,
                "pairs": rows,
                "pairs_per_step": 2,
                "adamw": {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01},
                "decayed": sorted(decayed),
                "max_grad_norm": 1.0,
                "error_of_f32": error,
                "steps": steps,
                "final": {
                    name: {"sum": w.double().sum().item(), "norm": w.double().norm().item()}
                    for name, w in sorted(weights.items())
                },
            }
            write_json(HERE / f"trajectory-{loss_type}.json", golden)
            save_file(weights, HERE / f"trajectory-{loss_type}.safetensors")
            print(f"{loss_type}: f32 differs from f64 by {error}")


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    disable_progress_bars()
    main()
