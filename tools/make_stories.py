#!/usr/bin/env python3
"""Makes examples/stories/: short stories about an animal, and which animal it was.

    tools/make_stories.py [--seed 1] [--out examples/stories]

The words are those of the TinyStories vocabulary, so that a model of 260,000 parameters can learn the task.
"""

import argparse
import json
import pathlib
import random

ANIMALS = ["cat", "dog", "bird", "fish", "frog", "bear", "cow", "duck"]
SIZES = ["little", "big", "small", "happy", "sad", "brave"]
COLORS = ["red", "blue", "green", "brown", "black", "white"]
NAMES = ["Tim", "Sue", "Max", "Lily", "Ben", "Mia", "Tom", "Anna", "Sam", "Lucy"]
THINGS = ["play", "sing", "jump", "sleep", "run", "eat", "dance", "hide"]
PLACES = ["in the park", "near the house", "by the tree", "with a ball", "in the sun", "with a friend"]
FILES = (("train", 300), ("valid", 40), ("test", 60))


def story(draw, animal):
    """`draw(words)` is one of the words."""
    name = draw(NAMES)
    return (
        f"Once upon a time, there was a {draw(SIZES)} {draw(COLORS)} {animal} named {name}. "
        f"{name} liked to {draw(THINGS)} {draw(PLACES)}. What was {name}?"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("examples/stories"))
    args = parser.parse_args()

    # random() alone: of the module's functions it is the one whose numbers are promised not to change.
    rng = random.Random(args.seed)
    draw = lambda words: words[int(rng.random() * len(words))]

    args.out.mkdir(parents=True, exist_ok=True)
    seen = set()
    for name, count in FILES:
        with open(args.out / f"{name}.jsonl", "w", encoding="utf-8", newline="\n") as file:
            for _ in range(count):
                animal = draw(ANIMALS)
                prompt = story(draw, animal)
                while prompt in seen:
                    prompt = story(draw, animal)
                seen.add(prompt)
                file.write(json.dumps({"prompt": prompt, "completion": animal}) + "\n")
    with open(args.out / "choices.txt", "w", encoding="utf-8", newline="\n") as file:
        file.writelines(animal + "\n" for animal in ANIMALS)


if __name__ == "__main__":
    main()
