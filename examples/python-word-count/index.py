"""Statistics of a text: words, sentences, reading time, and the words that matter.

Words that carry no meaning come from the module `stopwords`, which a layer may bring (see README.md). Without the
layer every word counts.
"""

import re
from collections import Counter

try:
    from stopwords import STOPWORDS
except ImportError:
    STOPWORDS = frozenset()

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
SENTENCE_END = re.compile(r"[.!?…]+(?:\s|$)")
WORDS_PER_MINUTE = 230


def main_handler(event, context):
    text = event.get("text")
    if not isinstance(text, str):
        raise ValueError("the event needs a string `text`")
    top = event.get("top", 5)
    language = event.get("language", "en")

    words = [word.lower() for word in WORD.findall(text)]
    ignored = STOPWORDS.get(language, frozenset()) if STOPWORDS else frozenset()
    telling = Counter(word for word in words if word not in ignored)
    sentences = len(SENTENCE_END.findall(text)) or (1 if words else 0)
    print(f"{len(words)} words, {len(ignored)} stop words known for {language!r}")
    return {
        "characters": len(text),
        "words": len(words),
        "distinct_words": len(set(words)),
        "sentences": sentences,
        "words_per_sentence": round(len(words) / sentences, 1) if sentences else 0,
        "reading_minutes": round(len(words) / WORDS_PER_MINUTE, 1),
        "top": [{"word": word, "count": count} for word, count in telling.most_common(top)],
    }
