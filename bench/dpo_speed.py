"""DPO training speed and peak memory, polo against TRL: same model, pairs, batch, precision, two threads.

    python bench/dpo_speed.py --data HH.jsonl.gz --model MODEL --runs 5
    python bench/dpo_speed.py --data HH.jsonl.gz --model MODEL --runs 5 --device cuda --warmup 4

Run it with the Python of an environment that holds the peer (see bench/README.md), from the project's folder, after
`cargo build --release`. Runs are interleaved. Both sides train one epoch over the same first pairs of the file at
batch 8, f32, at most 512 tokens. polo computes its reference log-probs once, and that pass counts against it here.

On a GPU (`--device cuda` or `vulkan`; TRL takes the same card as PyTorch's `cuda`), memory is that of the card as
nvidia-smi shows it, less what was taken before the run. The first steps compile kernels: leave them out with --warmup.
"""

import argparse, gzip, json, os, shutil, statistics, subprocess, sys, tempfile, threading
from pathlib import Path

HERE = Path(__file__).parent


def run(command, env):
    """Runs a command; returns its stdout."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    out, err = child.communicate()
    if child.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{err}")
    return out


def card_mb():
    """Memory in use on the first card; None where nvidia-smi does not say."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]) * 2**20 / 1e6
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None


def on_card(measure):
    """The figures of `measure`, with the card's peak memory in place of the process's."""
    rest, peak, done = card_mb(), 0.0, threading.Event()

    def watch():
        nonlocal peak
        while rest is not None and not done.wait(0.1):
            peak = max(peak, card_mb() or 0.0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = measure()
    finally:
        done.set()
        watcher.join()
    return result | {"peak_mb": float("nan") if rest is None else peak - rest}


def polo(args, data, home):
    out = Path(home) / "run"
    shutil.rmtree(out, ignore_errors=True)
    command = [args.polo, "--quiet", "train", "dpo", "--model", args.model, "--data", data, "--out", out,
               "--device", args.device]
    for setting in ["training.batch=8", "training.micro_batch=8", "training.epochs=1", "training.learning_rate=1e-6",
                    "training.checkpoint_every=0", "data.max_length=512", f"training.shares={args.threads}"]:
        command += ["--set", setting]
    env = dict(os.environ, RAYON_NUM_THREADS=str(args.threads))
    run(command, env)
    rows = [json.loads(line) for line in open(out / "timings.jsonl")]
    every = [row for row in rows if "seconds" in row]
    steps = every[args.warmup :]
    reference = next(row["reference_seconds"] for row in rows if "reference_seconds" in row)
    seconds = sum(row["seconds"] for row in steps)
    count = lambda steps: sum(round(row["seconds"] * row["examples_per_second"]) for row in steps)
    pairs = count(steps)
    tokens = sum(row["seconds"] * row["tokens_per_second"] for row in steps)
    # A warm-up is one of steps alone: of the pass over the references, the part that falls on the counted pairs counts.
    reference *= pairs / count(every)
    return {"with_reference": pairs / (seconds + reference), "cached_reference": pairs / seconds,
            "tokens_per_second": tokens / seconds, "peak_mb": max(row["peak_memory_bytes"] for row in steps) / 1e6}


def trl(args, data, steps, extra):
    env = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
    command = [sys.executable, HERE / "trl_dpo.py", "--model", args.model, "--data", data, "--batch", "8", "--steps",
               str(steps), "--warmup", str(args.warmup), "--max-length", "512", "--threads", str(args.threads),
               "--device", "cpu" if args.device == "cpu" else "cuda", *extra]
    # polo's CUDA backend takes f32 products to tensor cores where there are some; so may TRL then.
    command += ["--tf32"] if args.device.startswith("cuda") else []
    result = json.loads(run(command, env).strip().splitlines()[-1])
    return {"pairs_per_second": result["pairs_per_second_mean"], "tokens_per_second": result["tokens_per_second"],
            "peak_mb": result["peak_rss_mb"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--polo", default="target/release/polo")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, default=160)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="polo's: cpu, cuda, cuda:N, vulkan")
    parser.add_argument("--warmup", type=int, default=0, help="first steps that are not counted")
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as home:
        data = Path(home) / "pairs.jsonl"
        with (gzip.open if args.data.endswith(".gz") else open)(args.data, "rt") as lines:
            data.write_text("".join(line for line, _ in zip(lines, range(args.pairs))))
        steps = args.pairs // 8
        for _ in range(args.runs):
            for name, measure in [
                ("polo", lambda: polo(args, str(data), home)),
                ("TRL, live reference", lambda: trl(args, str(data), steps, [])),
                ("TRL, live reference, grouped by length", lambda: trl(args, str(data), steps, ["--order", "group_by_length"])),
                ("TRL, precomputed reference, grouped by length",
                 lambda: trl(args, str(data), steps, ["--precompute-ref", "--order", "group_by_length"])),
            ]:
                result = measure() if args.device == "cpu" else on_card(measure)
                print(name, {key: round(value, 2) for key, value in result.items()}, file=sys.stderr, flush=True)
                results.setdefault(name, []).append(result)
    median = lambda name, key: statistics.median(run[key] for run in results[name])
    own = {key: median("polo", key) for key in results["polo"][0]}
    print("| | pairs/s | polo is faster by | peak memory, MB | polo needs |\n|---|---|---|---|---|")
    print(f"| polo, reference pass included | {own['with_reference']:.2f} | | {own['peak_mb']:.0f} | |")
    print(f"| polo, reference from the cache | {own['cached_reference']:.2f} | | {own['peak_mb']:.0f} | |")
    for name in list(results)[1:]:
        base = own["cached_reference" if "precomputed" in name else "with_reference"]
        speed, peak = median(name, "pairs_per_second"), median(name, "peak_mb")
        print(f"| {name} | {speed:.2f} | {base / speed:.2f}x | {peak:.0f} | {own['peak_mb'] / peak:.2f}x |")


if __name__ == "__main__":
    main()
