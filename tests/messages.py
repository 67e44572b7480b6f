"""What a message to a user must be: sentences, not too long, with a value and a remedy"""

import re

MAX_CHARACTERS, MAX_SENTENCES = 500, 5
REMEDIES = """
acquire add annotate answer ask call centre check choose close compare compute connect convert copy
correct create delete draw drop encode evaluate export fill fit fix freeze give grow import
increase initialise inspect install iterate keep label leave let list load log look lower make mask
measure mend merge move name open pad pass pip prepare push put raise record reduce refer reload
remove rename replace report rerun reset reshape resume retract return run save say scale see select
set show shuffle skip split start stop swap switch take train triage try tune turn type update
upgrade use wait write
""".split()
# an imperative, where a sentence or a clause begins: not the same word as a noun
BEFORE = r'(?:^|[.!?:;,(]\s+|\{5\}\s+(?=[A-Z])|\b(?:and|or|there|instead)\s+)'
BEFORE += '(?:then |else |first |also )?'
REMEDY = re.compile(rf'{BEFORE}({"|".join(REMEDIES)})\b(?!=)', re.I)
VALUE = re.compile(
    r"""\d|['"`{=(]|\b[A-Z_a-z]+\.[a-z]|\b(no|none|nothing|not|empty|without|only|neither|never|NaN|same|already|each|has)\b""",
    re.I,
)
SENTENCE = re.compile(r'(?<=[.!?])\s+(?=[A-Z`\'"\[])')


def sentences(message: str) -> list[str]:
    return SENTENCE.split(message.strip())


def problems(message: str, remedy: bool = True) -> list[str]:
    "What is wrong with a message, in words; empty where it is fine"
    text, found = message.strip(), []
    if not text:
        return ['it is empty']
    if text.count('\n') == 0 and len(text) > MAX_CHARACTERS:
        found.append(f'it has {len(text)} characters, at most {MAX_CHARACTERS}')
    if text.count('\n') == 0 and len(sentences(text)) > MAX_SENTENCES:
        found.append(f'it has {len(sentences(text))} sentences, at most {MAX_SENTENCES}')
    if text[-1] not in '.!?)`\'"}' and '\n' not in text:
        found.append('it does not end like a sentence')
    if not VALUE.search(text):
        found.append('it names no value and no cause')
    if remedy and not REMEDY.search(text):
        found.append('it names no remedy')
    return found
