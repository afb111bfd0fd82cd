"""Makes tests/data/text: tokenizers small enough to keep, and the ids that the reference libraries give.

    python3 tools/make_tokenizer_fixtures.py ASSETS

ASSETS holds tokenizers/<model>/tokenizer.json, tokenizers/gguf-vocab and models/. Needs the packages tokenizers,
sentencepiece, gguf and numpy. Expected ids come from them and from the .out files of gguf-vocab, never from rung.

Strings in .inp files are separated by a line of SEPARATOR; line i of .out has the ids of string i.
"""

import json
import random
import shutil
import struct
import sys
from pathlib import Path

import gguf
import sentencepiece
import tokenizers

SEPARATOR = "\n__ggml_vocab_test__\n"
OUT = Path(__file__).resolve().parent.parent / "tests/data/text"

# Where tokenizers differ: white space of every kind, marks out of order, digits of other scripts, case folding of
# contractions, characters that no vocabulary has.
MORE = [
    "a\u00a0b", "a\u00a0\u00a0b", "a\u2003b \u3000c", "x\u0085y", "x\u180ey \u180e z", "a\u200bb", "tab\t\ttab \t x",
    "line\r\nline\r\n\r\nend", " \r\n \r\n", "trailing   ", "   \n   leading", "\n\n\n   \n x", "e\u0301 o\u0308 n\u0303",
    "\u00e9\u0323 a\u0323\u0301 q\u0307\u0323", "\u1100\u1161\u11a8 \uac01", "\u212b \u2126 \u1e9b\u0323", "\ufb01 \u2460 \uff11\uff12",
    "\u0661\u0662\u0663 \u0967\u0968\u0969 \u2167 \u00b2\u00b3 \u00bd", "IT'S we'LL 'tis o'clock y'all'D've",
    "it\u2019s \u017f 'S'\u017f 't\u212a", "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u3053\u3093\u306b\u3061\u306f \u30ab\u30bf\u30ab\u30ca", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643",
    "\u05e9\u05dc\u05d5\u05dd", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "def f(x):\n    return x**2  # sq\n",
    "{\"key\": [1, 2.5e-3, null]}", "https://example.org/a?b=c&d=%20", "$12,345.67 + 8% = ?", "<b>bold</b> &amp; <i>x</i>",
    "3.14159265358979323846", "CamelCaseAndsnake_case_9", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "----------------------------------------------------------------", "ab" * 60, "\u00ff\u00fe\u0100\u0144", "\u0000\u0001\u007f", "\ufffd\uffff",
    "\U0010ffff\U000e0041", "Once upon a time, there was a little girl named Lily.", "she said: \"No!\" and ran away...",
]

CHAT = [
    "<|im_start|>user\nHello there<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n  2 + 2?  <|im_end|>\n",
    "<|endoftext|><|im_start|><|im_end|>", " <|im_start|> <|im_end|> ", "<|im_start|", "<<|im_end|>>", "a<|im_end|>b",
    "<|im_end|>\n\n<|im_end|>", "'<|im_start|>'s", "12<|im_end|>34",
]


def random_strings(count):
    """Reproducible mixtures of scripts, blanks and punctuation."""
    rng = random.Random(7)
    pools = ["abcdefghij klmnop", "ABC xyz", "0123456789", " \t\n\r", ".,;:!?'\"-()[]{}", "\u00e0\u00e9\u00ee\u00f5\u00fc\u00df",
             "\u0430\u0431\u0432\u0433", "\u4e2d\u6587\u5b57", "\u0301\u0323\u0308", "\U0001f600\U0001f680\u2705", "\u0967\u0661\u00b2"]
    return ["".join(rng.choice(rng.choice(pools)) for _ in range(rng.randrange(1, 60))) for _ in range(count)]


def write_cases(path, strings):
    assert all(SEPARATOR not in s for s in strings)
    path.write_bytes(SEPARATOR.join(strings).encode())


def write_ids(path, lists):
    path.write_text("".join(" " + " ".join(map(str, ids)) + "\n" for ids in lists))


def encode(tokenizer, strings):
    return [tokenizer.encode(s, add_special_tokens=False).ids for s in strings]


def reduce_vocabulary(model_json, tokenizer, strings):
    """Keeps the tokens and merges that the strings can meet: those whose text occurs in one of their pieces."""
    seen = set()
    for string in strings:
        normal = tokenizer.normalizer.normalize_str(string)
        for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
            seen.update(piece[i:j] for i in range(len(piece)) for j in range(i + 1, len(piece) + 1))
    model = model_json["model"]
    model["vocab"] = {t: i for t, i in model["vocab"].items() if len(t) == 1 or t in seen}
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    model["merges"] = [[a, b] for a, b in pairs if a in model["vocab"] and b in model["vocab"] and a + b in model["vocab"]]
    return model_json


def make_json_folder(name, source, strings, chat):
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizers.Tokenizer.from_file(str(source))
    write_ids(folder / "more.out", encode(tokenizer, strings))
    if chat:
        write_ids(folder / "chat.out", encode(tokenizer, chat))
    return folder, tokenizer


def sentencepiece_model(tokens, scores, types):
    """A ModelProto with the vocabulary of a GGUF file, written field by field."""

    def varint(n):
        out = b""
        while n >= 0x80:
            out += bytes([n & 0x7F | 0x80])
            n >>= 7
        return out + bytes([n])

    def field(number, payload):
        if isinstance(payload, int):
            return varint(number << 3) + varint(payload)
        if isinstance(payload, float):
            return varint(number << 3 | 5) + struct.pack("<f", payload)
        return varint(number << 3 | 2) + varint(len(payload)) + payload

    proto = b""
    for text, score, kind in zip(tokens, scores, types):
        proto += field(1, field(1, text.encode()) + field(2, float(score)) + field(3, int(kind)))
    trainer = field(3, 2) + field(4, len(tokens)) + field(35, 1) + field(40, 0) + field(41, 1) + field(42, 2)
    normalizer = field(1, b"identity") + field(3, 1) + field(4, 0) + field(5, 1)
    return proto + field(2, trainer) + field(3, normalizer)


def make_stories(source, strings, more):
    reader = gguf.GGUFReader(source)
    value = lambda key: reader.fields["tokenizer.ggml." + key].contents()
    tokens, scores, types = value("tokens"), value("scores"), value("token_type")
    folder = OUT / "stories260k"
    folder.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(folder / "vocab.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    model = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(tokens, scores, types))
    write_ids(folder / "cases.out", [model.encode(s) for s in strings])
    write_ids(folder / "more.out", [model.encode(s) for s in more])


def main():
    assets = Path(sys.argv[1])
    vocab = assets / "tokenizers/gguf-vocab"
    cases = (vocab / "ggml-vocab-gpt-2.gguf.inp").read_bytes().decode().split(SEPARATOR)
    more = MORE + random_strings(60)
    OUT.mkdir(parents=True, exist_ok=True)
    write_cases(OUT / "cases.inp", cases)
    write_cases(OUT / "more.inp", more)
    write_cases(OUT / "chat.inp", CHAT)

    source = assets / "tokenizers/gpt2/tokenizer.json"
    folder, _ = make_json_folder("gpt2", source, more, None)
    shutil.copyfile(source, folder / "tokenizer.json")
    shutil.copyfile(vocab / "ggml-vocab-gpt-2.gguf.out", folder / "cases.out")

    source = assets / "tokenizers/smollm2/tokenizer.json"
    folder, tokenizer = make_json_folder("smollm2", source, more, CHAT)
    shutil.copyfile(source, folder / "tokenizer.json")
    write_ids(folder / "cases.out", encode(tokenizer, cases))

    source = assets / "tokenizers/qwen3/tokenizer.json"
    folder, tokenizer = make_json_folder("qwen2", source, more, CHAT)
    reduced = reduce_vocabulary(json.loads(source.read_text()), tokenizer, cases + more + CHAT)
    (folder / "tokenizer.json").write_text(json.dumps(reduced, ensure_ascii=False, separators=(",", ":")))
    shutil.copyfile(vocab / "ggml-vocab-qwen2.gguf.out", folder / "cases.out")
    again = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for strings in (cases, more):  # the library renumbers added tokens when ids have holes, so not CHAT
        assert encode(again, strings) == encode(tokenizer, strings), "the reduced vocabulary is not enough"

    # No vocabulary: the test reads one where RUNG_LLAMA3_TOKENIZER points.
    folder = OUT / "llama3"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(vocab / "ggml-vocab-llama-bpe.gguf.out", folder / "cases.out")
    write_ids(folder / "more.out", encode(tokenizers.Tokenizer.from_file(
        str(assets / "tokenizers/llama-3/tokenizer.json")), more))

    source = assets / "models/tinystories-656k"
    folder, tokenizer = make_json_folder("tinystories", source / "tokenizer.json", more, None)
    write_ids(folder / "cases.out", encode(tokenizer, cases))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        shutil.copyfile(source / name, folder / name)

    make_stories(assets / "models/stories260k/stories260K.gguf", cases, more)


if __name__ == "__main__":
    main()
