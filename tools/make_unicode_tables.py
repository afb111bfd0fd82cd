"""Makes src/text/unicode_tables.cc: where the Unicode versions inside the `tokenizers` package differ from those of our
libraries. The package's parts disagree with one another (regular expressions know Unicode 16, normal forms 9), and ids follow.

    python3 tools/make_unicode_tables.py

Every code point is put through the package's own components; Python's unicodedata (version 14, as PCRE2's) is the reference.
"""

import unicodedata
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers

OUT = Path(__file__).resolve().parent.parent / "src/text/unicode_tables.cc"
POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf".split()


def removed_by(step):
    """Code points that a pre-tokenizer which removes what it matches removes."""
    out = set()
    for at in range(0, len(POINTS), 4000):
        text = "".join(map(chr, POINTS[at:at + 4000]))
        left = set("".join(piece for piece, _ in step.pre_tokenize_str(text)))
        out.update(ord(c) for c in text if c not in left)
    return out


def numbers():
    step, out = pre_tokenizers.Digits(individual_digits=True), set()
    for at in range(0, len(POINTS), 4000):
        pieces = step.pre_tokenize_str("".join(chr(c) + "a" for c in POINTS[at:at + 4000]))
        out.update(ord(piece) for piece, _ in pieces if len(piece) == 1 and piece != "a")
    return out


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def array(comment, kind, name, rows):
    lines, line = [], "   "
    for row in rows:
        text = " {" + ", ".join(row) + "},"
        if len(line) + len(text) > 110:
            lines.append(line)
            line = "   "
        line += text
    return "\n".join([f"// {comment}", f"const {kind} {name}[] = {{", *lines, line, "};", f"const size_t {name}Size = std::size({name});", ""])


def span(points):
    return [(f"0x{a:X}", f"0x{b:X}") for a, b in ranges(points)]


def main():
    category = {}
    for name in CATEGORIES:
        for c in removed_by(pre_tokenizers.Split(Regex(rf"\p{{{name}}}"), "removed")):
            category[c] = name
    newer = {}
    for c in POINTS:
        if category.get(c, "Cn") != unicodedata.category(chr(c)) and category.get(c):
            newer.setdefault(category[c], set()).add(c)
    rows = sorted((a, b, name) for name, points in newer.items() for a, b in ranges(points))
    known = set().union(*newer.values())

    marks = {c for c, name in category.items() if name[0] == "M"}
    normal = normalizers.StripAccents()
    stripped = {c for c in POINTS if normal.normalize_str(chr(c)) == ""}
    decomposes = {c for c in POINTS if normalizers.NFKD().normalize_str(chr(c)) != unicodedata.normalize("NFKD", chr(c))}
    # Parts of U+11938 and its like compose only where the composition is known.
    parts = {ord(p) for c in decomposes for p in unicodedata.normalize("NFD", chr(c)) if unicodedata.combining(p) == 0 and c > 0xFFFF
             and len(unicodedata.normalize("NFD", chr(c))) > 1}
    inert = ({c for c in marks - stripped if unicodedata.combining(chr(c))} | decomposes | parts) - known

    lower = normalizers.Lowercase()
    cased = [(c, ord(lower.normalize_str(chr(c)))) for c in POINTS
             if len(lower.normalize_str(chr(c))) == 1 and lower.normalize_str(chr(c)) != chr(c).lower()]
    runs = []
    for c, to in cased:
        if runs and runs[-1][1] == c - 1 and to - c == runs[-1][2]:
            runs[-1][1] = c
        else:
            runs.append([c, c, to - c])

    punctuation = removed_by(pre_tokenizers.Punctuation("removed"))
    wide = {c for c, name in category.items() if name[0] == "P"} | {ord(c) for c in "$+<=>^`|~"}
    number = numbers() - {c for c, name in category.items() if name[0] == "N"}
    text = [
        "// Made by tools/make_unicode_tables.py; see unicode.h.", '#include "text/unicode_tables.h"', "", "#include <iterator>", "",
        "namespace rung::text {", "", "// clang-format off",
        array("Assigned after Unicode 14, or moved to another category.", "CategoryRange", "kNewCategories",
              [(f"0x{a:X}", f"0x{b:X}", f"UTF8PROC_CATEGORY_{name.upper()}") for a, b, name in rows]),
        array("Of Unicode 10 to 14: not decomposed, not reordered, not composed.", "CodeRange", "kInert", span(inert)),
        array("Marks that stripping accents leaves, and what it strips beside marks.", "CodeRange", "kKeptMarks", span(marks - stripped)),
        array("", "CodeRange", "kOtherMarks", span(stripped - marks)).removeprefix("// \n"),
        array("Punctuation that the pre-tokenizer of that name does not know, and what it takes beside it.", "CodeRange",
              "kNotPunctuation", span(wide - punctuation)),
        array("", "CodeRange", "kOtherPunctuation", span(punctuation - wide)).removeprefix("// \n"),
        array("Numbers newer than Unicode 16.", "CodeRange", "kNewNumbers", span(number)),
        array("Capitals newer than Unicode 14: first, last, distance to the small letter.", "CaseRange", "kNewCapitals",
              [(f"0x{a:X}", f"0x{b:X}", str(d)) for a, b, d in runs]),
        "// clang-format on", "", "}  // namespace rung::text", ""]
    OUT.write_text("\n".join(text))


if __name__ == "__main__":
    main()
