#!/usr/bin/env python3
"""Training steps and generation of rung beside other programs, on the same machine and the same weights.

    bench/dequantize.py MODEL.gguf HF_FOLDER --tokenizer tests/data/text/smollm2/tokenizer.json
    bench/compare.py --rung build/release/rung --model MODEL.gguf --hf-folder HF_FOLDER --out results.json

Every measurement is a process of its own, which reports its own VmHWM; rounds are interleaved (all peers once, then
all again), so that a machine that slows down slows all of them. Medians over rounds; see bench/README.md.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

STEP_PEERS = ["rung-gguf", "rung-nf4", "rung-lora", "peft-qlora", "peft-lora-bf16", "torch-ladder", "torch-ladder-nf4"]
ONE_THREAD = "rung-one-thread"
FORWARD_PEERS = ["rung-gguf", "rung-nf4", ONE_THREAD]
GENERATE_PEERS = ["rung-generate", "llama-cpp"]
LONG_PEERS = ["rung-prefill-long", "llama-cpp-prefill-long"]
ALL_PEERS = STEP_PEERS + [ONE_THREAD] + GENERATE_PEERS + LONG_PEERS
WHAT = {
    "rung-gguf": "rung, ladder beside the GGUF file",
    "rung-nf4": "rung, ladder beside the NF4 folder",
    "rung-lora": "rung, LoRA r = 64 beside the NF4 folder",
    "peft-qlora": "peft QLoRA, bitsandbytes NF4, r = 64",
    "peft-lora-bf16": "peft LoRA, bf16 model, r = 64",
    "torch-ladder": "the same ladder in PyTorch, bf16 model",
    "torch-ladder-nf4": "the same ladder in PyTorch, bitsandbytes NF4 model",
    ONE_THREAD: "rung, GGUF file, one thread",
    "rung-generate": "rung generation",
    "llama-cpp": "llama-cpp-python generation",
    "rung-prefill-long": "rung prefill",
    "llama-cpp-prefill-long": "llama-cpp-python prefill",
}


# A peer runs in a process of its own and prints one JSON object.

def resident_peak():
    """VmHWM of this process in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def start_torch(a):
    import torch

    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    return torch


def random_ids(torch, a, vocabulary):
    return torch.randint(0, vocabulary, (a.tokens // a.sequence, a.sequence))


def time_steps(a, step, parameters, libraries):
    """One step that is not timed, then a.iterations. The peak of memory is also read for the steps alone, without
    what loading took."""
    loaded = resident_peak()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM := VmRSS
    except OSError:
        pass
    loss = step()
    seconds = []
    for _ in range(a.iterations):
        begin = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - begin)
    steps = resident_peak()
    return {"tokens_per_second": a.tokens / statistics.median(seconds), "step_seconds": seconds, "loss": loss,
            "parameters": parameters, "vm_hwm_bytes": max(loaded, steps), "vm_hwm_steps_bytes": steps,
            "vm_hwm_libraries_bytes": libraries}


def backbone_options(torch, quantized):
    """What from_pretrained takes: a bf16 model, or its linear layers as NF4 with double quantisation."""
    options = {"dtype": torch.bfloat16, "device_map": "cpu", "attn_implementation": "sdpa"}
    if quantized:
        import transformers

        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16)
    return options


def peft_lora(a, quantized):
    torch = start_torch(a)
    import peft
    import transformers

    libraries = resident_peak()
    model = transformers.AutoModelForCausalLM.from_pretrained(a.hf_folder, **backbone_options(torch, quantized))
    if quantized:
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model = peft.get_peft_model(model, peft.LoraConfig(r=64, lora_alpha=64, target_modules="all-linear",
                                                       lora_dropout=0.0, task_type="CAUSAL_LM"))
    model.config.use_cache = False
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    ids = random_ids(torch, a, model.config.vocab_size)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return loss.item()

    return time_steps(a, step, sum(p.numel() for p in trained), libraries)


def make_ladder(torch, spec, width_in):
    """The ladder of `rung train` with its defaults: gate sum, standardised taps, rotary attention, gated MLP."""
    nn, functional = torch.nn, torch.nn.functional
    S, D = spec["width"], spec["head_dim"]
    linear = lambda i, o: nn.Linear(i, o, bias=False)

    def rotate(x, cos, sin):
        half = x.shape[-1] // 2
        return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_in, self.norm_mid = nn.RMSNorm(S, eps=1e-5), nn.RMSNorm(S, eps=1e-5)
            self.q, self.k, self.v, self.o = linear(S, S), linear(S, S), linear(S, S), linear(S, S)
            self.gate, self.up, self.down = linear(S, spec["inner"]), linear(S, spec["inner"]), linear(spec["inner"], S)

        def forward(self, x, cos, sin):
            h = self.norm_in(x)
            heads = lambda y: y.unflatten(-1, (S // D, D)).transpose(1, 2)
            q, k = rotate(heads(self.q(h)), cos, sin), rotate(heads(self.k(h)), cos, sin)
            out = functional.scaled_dot_product_attention(q, k, heads(self.v(h)), is_causal=True)
            x = x + self.o(out.transpose(1, 2).flatten(2))
            h = self.norm_mid(x)
            return x + self.down(functional.silu(self.gate(h)) * self.up(h))

    class Ladder(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(spec["rungs"]))
            self.taps = nn.ModuleList(linear(width_in, S) for _ in spec["taps"])
            self.up = linear(S, width_in)
            nn.init.zeros_(self.up.weight)
            for j in range(len(spec["taps"])):
                self.register_buffer(f"mean{j}", torch.zeros(width_in))
                self.register_buffer(f"inv_deviation{j}", torch.ones(width_in))

        def forward(self, tapped, last):
            T = last.shape[1]
            angle = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(0, D, 2) / D)
            cos, sin = (torch.cat((f(angle), f(angle)), -1) for f in (torch.cos, torch.sin))
            s = torch.zeros(last.shape[:2] + (S,))
            for j, block in enumerate(self.blocks):
                if j < len(self.taps):
                    x = functional.rms_norm(tapped[j].float(), (width_in,), eps=1e-5)
                    s = s + self.taps[j]((x - getattr(self, f"mean{j}")) * getattr(self, f"inv_deviation{j}"))
                s = block(s, cos, sin)
            return last.float() + self.up(s)

    return Ladder()


def torch_ladder(a, quantized):
    torch = start_torch(a)
    import transformers

    libraries = resident_peak()
    spec = json.loads(a.spec)
    model = transformers.AutoModelForCausalLM.from_pretrained(a.hf_folder, **backbone_options(torch, quantized))
    model.eval().requires_grad_(False)
    ladder = make_ladder(torch, spec, model.config.hidden_size)
    count = sum(p.numel() for p in ladder.parameters())
    if count != spec["parameters"]:
        raise SystemExit(f"the PyTorch ladder has {count} parameters, rung's {spec['parameters']}")
    optimizer = torch.optim.AdamW(ladder.parameters(), lr=1e-3, weight_decay=0.0)
    kept = {}

    def keep(layer):
        def hook(module, inputs, output):
            kept[layer] = output[0] if isinstance(output, tuple) else output
        return hook

    last = model.config.num_hidden_layers - 1
    for layer in {*spec["taps"], last}:
        model.model.layers[layer].register_forward_hook(keep(layer))
    ids = random_ids(torch, a, model.config.vocab_size)
    targets = random_ids(torch, a, model.config.vocab_size)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            model.model(ids, use_cache=False)
        z = ladder([kept[layer] for layer in spec["taps"]], kept[last])
        logits = model.lm_head(model.model.norm(z.to(torch.bfloat16)))
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(ladder.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return time_steps(a, step, count, libraries)


def llama_cpp_generate(a):
    import random

    import llama_cpp

    model = llama_cpp.Llama(a.model, n_ctx=a.prompt_tokens + a.new_tokens, n_batch=512, n_threads=a.threads,
                            n_threads_batch=a.threads, verbose=False)
    chooser = random.Random(0)
    prompt = [chooser.randrange(model.n_vocab()) for _ in range(a.prompt_tokens)]
    model.eval(prompt)  # touches memory
    model.reset()
    begin = time.perf_counter()
    model.eval(prompt)
    prefill = time.perf_counter() - begin
    begin = time.perf_counter()
    for _ in range(a.new_tokens):
        model.eval([model.sample(temp=0.0)])
    decode = time.perf_counter() - begin
    return {"prefill_tokens_per_second": a.prompt_tokens / prefill, "decode_tokens_per_second": a.new_tokens / decode,
            "vm_hwm_bytes": resident_peak()}


PEERS = {"peft-qlora": lambda a: peft_lora(a, True), "peft-lora-bf16": lambda a: peft_lora(a, False),
         "torch-ladder": lambda a: torch_ladder(a, False), "torch-ladder-nf4": lambda a: torch_ladder(a, True),
         "llama-cpp": llama_cpp_generate, "llama-cpp-prefill-long": llama_cpp_generate}

LADDER = ["--rejoin", "0"]  # as torch_ladder: nothing of the model is crossed


def command_of(peer, a, spec):
    threads = ["--threads", "1" if peer == ONE_THREAD else str(a.threads)]
    step = ["--tokens", str(a.tokens), "--sequence", str(a.sequence), "--iterations", str(a.iterations), "--json"]
    if peer in ("rung-gguf", ONE_THREAD):
        return [a.rung, "bench", "step", "--model", a.model, *LADDER, *step, *threads]
    if peer == "rung-nf4":
        return [a.rung, "bench", "step", "--model", a.nf4_folder or a.hf_folder, *LADDER, *step, *threads]
    if peer == "rung-lora":
        return [a.rung, "bench", "step", "--model", a.nf4_folder or a.hf_folder, "--method", "lora", *step, *threads]
    prompt, new = (a.long_prompt_tokens, 1) if peer in LONG_PEERS else (a.prompt_tokens, a.new_tokens)
    lengths = ["--prompt-tokens", str(prompt), "--new-tokens", str(new)]
    if peer in ("rung-generate", "rung-prefill-long"):
        return [a.rung, "bench", "generate", "--model", a.model, *lengths, "--json", *threads]
    python = a.llama_python if peer.startswith("llama-cpp") else a.python
    return [python, __file__, "--peer", peer, "--model", a.model, "--hf-folder", a.hf_folder, *lengths, *step[:-1],
            *threads, "--spec", json.dumps(spec)]


def run_once(peer, a, spec):
    threads = 1 if peer == ONE_THREAD else a.threads
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1",
                   "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(command_of(peer, a, spec), capture_output=True, text=True, env=environment,
                              timeout=a.timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    if done.returncode != 0:
        return {"error": (done.stderr.strip() or "no message").splitlines()[-1]}
    try:
        return json.loads(done.stdout[done.stdout.index("{"):])
    except ValueError:
        return {"error": f"no JSON in its output: {done.stdout[-200:]!r}"}


def ladder_spec(a):
    """The ladder that rung chooses for this model: what the PyTorch one is made to."""
    short = argparse.Namespace(**{**vars(a), "tokens": 32, "sequence": 32, "iterations": 1})
    run = run_once("rung-gguf", short, None)
    if "error" in run:
        raise SystemExit(f"rung bench step: {run['error']}")
    return {key: run[key] for key in ("taps", "rungs", "width", "inner", "head_dim", "parameters")}


def median_of(runs, key):
    values = [run[key] for run in runs if run.get(key) is not None]
    return statistics.median(values) if values else None


def summarise(results):
    summary = {}
    for peer, runs in results.items():
        good = [run for run in runs if "error" not in run]
        if not good:
            summary[peer] = {"error": runs[-1]["error"]}
            continue
        keys = ("tokens_per_second", "prefill_tokens_per_second", "decode_tokens_per_second", "vm_hwm_bytes",
                "vm_hwm_steps_bytes", "vm_hwm_libraries_bytes", "planned_bytes", "peak_share",
                "forward_tokens_per_second", "forward_peak_share",
                "seconds_to_first_step", "bandwidth_share", "parameters")
        row = {key: median_of(good, key) for key in keys}
        summary[peer] = {"runs": len(good), **{key: value for key, value in row.items() if value is not None}}
        if len(good) < len(runs):
            summary[peer]["failed_runs"] = len(runs) - len(good)
        for key in ("tokens_per_second", "prefill_tokens_per_second", "decode_tokens_per_second",
                    "forward_tokens_per_second", "forward_peak_share", "seconds_to_first_step"):
            if key in summary[peer]:
                summary[peer][key + "_range"] = [min(run[key] for run in good), max(run[key] for run in good)]
    return summary


def table(summary, peers, rates):
    """Markdown. Ratios are against the first peer if it is rung: how often as fast it is, how many times the memory
    others take."""
    first = summary.get(peers[0], {}) if peers[0].startswith("rung") else {}
    head = ["", *(f"{name} tokens/s" for name, _ in rates), *(f"rung is × as fast ({name})" for name, _ in rates),
            "VmHWM MiB (after loading)", "× rung's memory"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" + " ---: |" * (len(head) - 1)]
    for peer in peers:
        row = summary.get(peer)
        if row is None:
            continue
        if "error" in row:
            cells = [f"not run: {row['error']}"] + [""] * (len(head) - 2)
            lines.append(f"| {WHAT[peer]} | " + " | ".join(cells) + " |")
            continue
        cells = []
        for _, key in rates:
            low, high = row[key + "_range"]
            cells.append(f"{row[key]:.1f} ({low:.1f} to {high:.1f})")
        cells += [f"{first[key] / row[key]:.2f}" if key in first else "" for _, key in rates]
        steps = f" ({row['vm_hwm_steps_bytes'] / 2**20:.0f})" if "vm_hwm_steps_bytes" in row else ""
        cells.append(f"{row['vm_hwm_bytes'] / 2**20:.0f}{steps}")
        cells.append(f"{row['vm_hwm_bytes'] / first['vm_hwm_bytes']:.2f}" if "vm_hwm_bytes" in first else "")
        lines.append(f"| {WHAT[peer]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def forward_table(summary, peers):
    """The frozen forward beside the peak that is measured in the same process, on the same threads."""
    lines = ["| | frozen forward tokens/s | % of peak | command to end of first step, s |",
             "| --- | ---: | ---: | ---: |"]

    def cell(row, key, scale, digits):
        low, high = row[key + "_range"]
        return f"{row[key] * scale:.{digits}f} ({low * scale:.{digits}f} to {high * scale:.{digits}f})"

    for peer in peers:
        row = summary[peer]
        if "error" in row:
            lines.append(f"| {WHAT[peer]} | not run: {row['error']} | | |")
            continue
        lines.append(f"| {WHAT[peer]} | {cell(row, 'forward_tokens_per_second', 1, 1)} | "
                     f"{cell(row, 'forward_peak_share', 100, 1)} | {cell(row, 'seconds_to_first_step', 1, 2)} |")
    return "\n".join(lines)


def speedup_of_threads(summary, threads):
    rates = [summary.get(peer, {}).get("forward_tokens_per_second") for peer in ("rung-gguf", ONE_THREAD)]
    if None in rates:
        return ""
    return f"{threads} threads run the frozen forward {rates[0] / rates[1]:.2f} times as fast as one."


def about_machine(a):
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    packages = {}
    for name in ("torch", "transformers", "peft", "bitsandbytes", "llama-cpp-python"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    peak = subprocess.run([a.rung, "bench", "peak", "--json", "--threads", str(a.threads)], capture_output=True,
                          text=True)
    return {"processor": model, "threads": a.threads, "kernel": platform.release(), "python": platform.python_version(),
            "load_average": os.getloadavg(), "packages": packages,
            "peak": json.loads(peak.stdout) if peak.returncode == 0 else None}


def report(summary, about, a):
    parts = [f"{about['processor']}, {a.threads} threads, {a.tokens} tokens a step in sequences of {a.sequence}; "
             f"medians of {a.runs} runs of {a.iterations} steps (range in brackets)."]
    steps = [peer for peer in a.peers if peer in STEP_PEERS]
    if steps:
        parts.append(table(summary, steps, [("training", "tokens_per_second")]))
        libraries = [row["vm_hwm_libraries_bytes"] for row in summary.values() if "vm_hwm_libraries_bytes" in row]
        if libraries:
            parts.append(f"Of the Python programs' memory up to {max(libraries) / 2**20:.0f} MiB are there once the "
                         "libraries are imported, before a model is loaded.")
    forward = [peer for peer in a.peers if peer in FORWARD_PEERS]
    if forward:
        parts += ["The frozen blocks alone, without head and ladder:", forward_table(summary, forward)]
        parts += [text for text in [speedup_of_threads(summary, a.threads)] if text]
    generation = [peer for peer in a.peers if peer in GENERATE_PEERS]
    if generation:
        parts.append(f"Generation: a prompt of {a.prompt_tokens} tokens, then {a.new_tokens}.")
        parts.append(table(summary, generation, [("prefill", "prefill_tokens_per_second"),
                                                 ("decode", "decode_tokens_per_second")]))
    long = [peer for peer in a.peers if peer in LONG_PEERS]
    if long:
        parts.append(f"A prompt of {a.long_prompt_tokens} tokens:")
        parts.append(table(summary, long, [("prefill", "prefill_tokens_per_second")]))
    return "\n\n".join(parts)


def put_into(path, text):
    """Replaces what stands between the two marks of a Markdown file."""
    begin, end = "<!-- results -->", "<!-- end of results -->"
    old = path.read_text()
    if begin not in old or end not in old:
        raise SystemExit(f"{path}: no {begin} and {end}")
    path.write_text(old[:old.index(begin)] + begin + "\n" + text + "\n" + old[old.index(end):])


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rung", default="build/release/rung")
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--hf-folder", required=True, help="the same model in bf16, by bench/dequantize.py")
    parser.add_argument("--nf4-folder", default="",
                        help="the folder as NF4, by `rung quantize`; default: quantised while the folder is loaded")
    parser.add_argument("--python", default=sys.executable, help="with torch, transformers, peft, bitsandbytes")
    parser.add_argument("--llama-python", default=sys.executable, help="with llama-cpp-python")
    parser.add_argument("--peers", nargs="+", default=ALL_PEERS, choices=ALL_PEERS)
    parser.add_argument("--runs", type=int, default=3, help="rounds, each of every peer once")
    parser.add_argument("--iterations", type=int, default=3, help="timed steps of a run, after one that is not")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--sequence", type=int, default=512)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--long-prompt-tokens", type=int, default=2048, help="prompt of the peers named -long")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--timeout", type=float, default=3600, help="seconds of one run")
    parser.add_argument("--out", type=Path, help="all runs and the summary as JSON")
    parser.add_argument("--readme", type=Path, help="a Markdown file with <!-- results --> marks to put the table in")
    parser.add_argument("--peer", choices=sorted(PEERS), help=argparse.SUPPRESS)  # run that one here
    parser.add_argument("--spec", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    a = parse()
    if a.peer:
        print(json.dumps(PEERS[a.peer](a)))
        return
    if a.tokens % a.sequence != 0:
        raise SystemExit("--tokens must be a multiple of --sequence: peers that pad would do other work")
    spec = ladder_spec(a) if {"torch-ladder", "torch-ladder-nf4"} & set(a.peers) else None
    about = about_machine(a)
    results = {peer: [] for peer in a.peers}
    for round_number in range(a.runs):
        for peer in a.peers:
            if results[peer] and all("error" in run for run in results[peer]):
                continue  # what failed at first will fail again
            run = run_once(peer, a, spec)
            results[peer].append(run)
            what = run.get("error") or ", ".join(
                f"{key} {run[key]:.1f}" for key in ("tokens_per_second", "prefill_tokens_per_second",
                                                    "decode_tokens_per_second") if key in run)
            print(f"round {round_number + 1}, {peer}: {what}", file=sys.stderr, flush=True)
    summary = summarise(results)
    text = report(summary, about, a)
    print(text)
    if a.out:
        everything = {"about": about, "spec": spec, "summary": summary, "runs": results}
        a.out.write_text(json.dumps(everything, indent=2) + "\n")
    if a.readme:
        put_into(a.readme, text)


if __name__ == "__main__":
    main()
