"""The peer's side of the speed benchmark: DPO with TRL as a careful user would run it.

    pip install torch transformers trl==1.16.0 datasets
    python bench/trl_dpo.py --build-model MODEL --data pairs.jsonl.gz
    python bench/trl_dpo.py --model MODEL --data pairs.jsonl.gz --batch 8 --steps 20 --threads 2

Prints one JSON line. TRL's defaults that cost time or change the computation are off: bf16 autocast
(this compares f32), gradient checkpointing, evaluation, logging, saving. What TRL cannot do stays as it
is: `padding_free` exists but has no effect in 1.16, and its log-prob kernel scores the completion tokens
alone on a GPU, but every position on a CPU. SDPA attention and the fused AdamW are its faster choices.

`--order group_by_length` pads less and is TRL's fastest order. Its steps differ much in length, so take
40 steps or more with `--warmup 0` and read `pairs_per_second_mean`, all pairs over all time; the median
of the steps says little there. `imports_rss_mb` is what importing torch and TRL takes before any work.
"""

import argparse
import gzip
import itertools
import json
import os
import resource
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

# Set on some machines for old OpenBLAS builds; they slow a current numpy down.
os.environ.pop("OPENBLAS_CORETYPE", None)
os.environ.pop("OPENBLAS_L2_SIZE", None)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import torch
from datasets import Dataset, disable_progress_bars
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
)
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer

TURN = "\n\nAssistant:"


def read_pairs(path):
    """prompt/chosen/rejected; HH dialogues are split after the last assistant turn they share."""
    opened = (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else open(path, encoding="utf-8")
    )
    with opened as lines:
        for line in lines:
            row = json.loads(line)
            if "prompt" not in row:
                end = os.path.commonprefix([row["chosen"], row["rejected"]]).rfind(TURN)
                if end < 0:
                    continue
                end += len(TURN)
                row = {
                    "prompt": row["chosen"][:end],
                    "chosen": row["chosen"][end:],
                    "rejected": row["rejected"][end:],
                }
            if row["chosen"] != row["rejected"]:
                yield row


def build_model(folder, data, hidden, layers, vocab):
    """A random Llama (tied head) with a byte-level BPE trained on the data."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((text for row in read_pairs(data) for text in row.values()), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=1024,
    ).save_pretrained(folder)

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=hidden * 11 // 4,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    model.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Stopwatch(TrainerCallback):
    """Time, real tokens and CPU time from the end of one step to the end of the next, data loading included."""

    def __init__(self, trainer):
        self.trainer = trainer
        self.marks = []

    def mark(self):
        if self.trainer.args.device.type == "cuda":
            torch.cuda.synchronize()
        tokens = self.trainer._total_train_tokens
        self.marks.append((time.perf_counter(), tokens, time.process_time()))

    def on_train_begin(self, *args, **kwargs):
        self.mark()

    def on_step_end(self, *args, **kwargs):
        self.mark()


def usable(pairs, tokenizer, args):
    """As many pairs as the run needs; TRL would drop those whose prompt fills the context."""
    taken = []
    for row in pairs:
        prompt = len(tokenizer(row["prompt"])["input_ids"])
        if prompt >= args.max_length:
            continue
        longest = max(row["chosen"], row["rejected"], key=len)
        length = min(prompt + len(tokenizer(longest)["input_ids"]) + 1, args.max_length)
        taken.append(row | {"length": length})
        if len(taken) == args.batch * args.steps:
            break
    return Dataset.from_list(taken)


def run(args):
    torch.set_num_threads(args.threads)
    at_rest = megabytes()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    dataset = usable(read_pairs(args.data), tokenizer, args)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        trainer = DPOTrainer(
            model=str(args.model),
            args=DPOConfig(
                output_dir=folder,
                loss_type=["sigmoid"],
                beta=0.1,
                max_length=args.max_length,
                per_device_train_batch_size=args.batch,
                max_steps=args.steps,
                learning_rate=1e-5,
                optim=args.optim,
                max_grad_norm=1.0,
                train_sampling_strategy=args.order,
                length_column_name="length",
                remove_unused_columns=False,  # else the lengths are gone before they are asked for
                precompute_ref_log_probs=args.precompute_ref,
                model_init_kwargs={"attn_implementation": args.attention},
                torch_compile=args.compile,
                bf16=False,
                tf32=args.tf32 if args.device == "cuda" else None,
                use_cpu=args.device == "cpu",
                gradient_checkpointing=False,
                dataloader_num_workers=0,
                dataloader_pin_memory=args.device == "cuda",
                logging_strategy="no",
                save_strategy="no",
                eval_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=dataset,
            processing_class=tokenizer,
        )
        prepared = time.perf_counter() - started
        trainer.remove_callback(PrinterCallback)
        stopwatch = Stopwatch(trainer)
        trainer.add_callback(stopwatch)
        trainer.train()

    marks = stopwatch.marks[args.warmup :]
    times = [after[0] - before[0] for before, after in itertools.pairwise(marks)]
    cpu = [after[2] - before[2] for before, after in itertools.pairwise(marks)]
    tokens = [after[1] - before[1] for before, after in itertools.pairwise(marks)]
    return {
        "pairs_per_second": args.batch / statistics.median(times),
        "pairs_per_second_mean": args.batch * len(times) / sum(times),
        "tokens_per_second": sum(tokens) / sum(times),
        "peak_rss_mb": megabytes(),
        "imports_rss_mb": at_rest,
        "peak_cuda_mb": torch.cuda.max_memory_allocated() / 2**20
        if args.device == "cuda"
        else None,
        "prepare_seconds": prepared,
        "step_seconds": times,
        "step_cpu_seconds": cpu,
        "step_tokens": tokens,
        "parameters": sum(weight.numel() for weight in trainer.model.parameters()),
        "settings": {key: str(value) for key, value in vars(args).items()},
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "datasets")},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=8, help="pairs per step")
    parser.add_argument("--steps", type=int, default=20, help="warm-up included")
    parser.add_argument("--warmup", type=int, default=3, help="steps not counted")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precompute-ref", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tf32", action="store_true", help="f32 products on tensor cores")
    parser.add_argument(
        "--order", choices=["sequential", "random", "group_by_length"], default="sequential"
    )
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument("--optim", default="adamw_torch_fused")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--build-model", type=Path, metavar="DIR", help="write a random model and stop"
    )
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocab", type=int, default=4096)
    args = parser.parse_args()
    if not args.build_model and not args.model:
        parser.error("--model or --build-model is needed")
    if args.warmup >= args.steps:
        parser.error("--steps must be more than --warmup")

    logging.disable_progress_bar()
    disable_progress_bars()
    if args.build_model:
        size = build_model(args.build_model, args.data, args.hidden, args.layers, args.vocab)
        print(json.dumps({"model": str(args.build_model), "parameters": size}))
    else:
        print(json.dumps(run(args)))


if __name__ == "__main__":
    main()
