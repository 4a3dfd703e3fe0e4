"""Text that tests make themselves. Imported as `synthetic`: pytest puts this folder on the path."""

import random


def synthetic_documents(count: int, seed: int, words: int = 240) -> list[str]:
    """Texts of made-up words, about 1.5 kB each: the nth most frequent word comes 1/n as often as the first."""
    draw = random.Random(seed)
    onsets = "b br ch d dr f g gl h j k l m n p pl r s st t th tr v w".split()
    vowels = "a e i o u ai ea ou".split()
    syllables = [onset + vowel for onset in onsets for vowel in vowels]
    lexicon = ["".join(draw.choices(syllables, k=draw.choice((1, 1, 2, 2, 3)))) for _ in range(2500)]
    foreign = "größer naïve Zürich 日本語 привет señor ελλάδα 🙂 🚀 👩‍🚀 café".split()
    weights = [1 / rank for rank in range(1, len(lexicon) + 1)]
    texts = []
    for number in range(count):
        chosen = draw.choices(lexicon, weights, k=draw.randint(words // 2, words * 3 // 2))
        if number % 5 == 0:
            for _ in range(8):
                chosen.insert(draw.randrange(len(chosen)), draw.choice(foreign))
        sentences, start = [], 0
        while start < len(chosen):
            end = start + draw.randint(4, 18)
            sentences.append(" ".join(chosen[start:end]).capitalize() + draw.choice((".", ".", "?", f" in {number}.")))
            start = end
        texts.append("\n\n".join(" ".join(sentences[i : i + 5]) for i in range(0, len(sentences), 5)) + "\n")
    return texts
